"""How captures are read: what a packet belongs to, and what becomes of it.  Imports nothing heavy, as `bench --help`
asks for its words.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, Final

from bench.errors import InputError, instead

#: tunnels that can be unwrapped, by the word that asks for it
TUNNELS: Final = ("vxlan", "geneve", "gre", "erspan", "gtp-u", "ipip", "6in4", "teredo")
SESSION_RULES: Final = ("tcp", "5tuple")
PACKET_FILTERS: Final = ("retransmissions", "keepalives")  # packets that can be left out
CLIENT_RULES: Final = ("handshake", "ports")
LONGEST_TIMEOUT: Final = 9e9  # seconds; more does not fit int64 as ns


@dataclass(frozen=True)
class IngestOptions:
    """The rules of one reading.  Raises :class:`InputError` for a value that is none of its kind.

    Words of ``decap`` and ``filter`` may be any sequence, in any order.
    """

    idle_timeout: float | None = None  # seconds after which a silent session ends; None: never
    #: ``tcp``: a SYN with another initial sequence number after FIN or RST begins a session; ``5tuple``: it does not
    sessions: str = "tcp"
    #: who is the client where no SYN or SYN-ACK tells: the sender of the first packet (``handshake``), or the end point
    #: beside a well-known port (``ports``)
    client: str = "handshake"
    decap: tuple[str, ...] = ()  # of `TUNNELS`: packets in these belong to the inner headers
    drop_copies: float | None = None  # ms: a packet that repeats another of its session within so long is left out
    filter: tuple[str, ...] = ()  # of `PACKET_FILTERS`: packets to leave out
    by_vlan: bool = False  # one 5-tuple in two VLANs is two sessions

    def __post_init__(self) -> None:
        """Check the values; the order of words tells nothing."""
        for name in ("decap", "filter"):
            object.__setattr__(self, name, tuple(sorted(set(getattr(self, name)))))
        if self.idle_timeout is not None and not 0 < self.idle_timeout <= LONGEST_TIMEOUT:  # nor is nan
            raise InputError(
                "bad-timeout",
                f"idle timeout: {self.idle_timeout} is not a number of seconds above 0 and up to {LONGEST_TIMEOUT:g}; "
                "leave it out for none",
            )
        if self.drop_copies is not None and not 0 <= self.drop_copies <= LONGEST_TIMEOUT:
            raise InputError("bad-options", f"drop copies: {self.drop_copies} is not a number of milliseconds; give 5")
        for what, value, known in (("sessions", self.sessions, SESSION_RULES), ("client", self.client, CLIENT_RULES)):
            if value not in known:
                raise InputError("bad-options", f"{what}: no rule {value!r}; {instead(value, known)}")
        if unknown := sorted(set(self.decap) - set(TUNNELS)):
            raise InputError("bad-options", f"decap: no tunnel {unknown[0]!r}; {instead(unknown[0], TUNNELS)}")
        if unknown := sorted(set(self.filter) - set(PACKET_FILTERS)):
            raise InputError(
                "unknown-filter",
                f"no filter {unknown[0]!r} of packets; {instead(unknown[0], PACKET_FILTERS)} (`bench run "
                "--filter` leaves out sessions)",
            )

    @property
    def unusual(self) -> dict[str, Any]:
        """The rules that are not the default's, JSON types."""
        fields = {f.name: f.default for f in dataclasses.fields(IngestOptions)}
        values = {name: getattr(self, name) for name, default in fields.items() if getattr(self, name) != default}
        return values | {name: list(values[name]) for name in ("decap", "filter") if name in values}
