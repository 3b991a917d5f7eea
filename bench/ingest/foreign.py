"""What a file is that is no capture, told by its first bytes, and what to do about it."""

from typing import Final

_CONVERT: Final = "convert it: editcap -F pcap IN OUT (of Wireshark)"

#: first bytes -> what it is, and the remedy
_STARTS: Final = (
    (b"version https://git-lfs", "a Git LFS pointer, which only names the file", "fetch the file: git lfs pull"),
    (b"snoop\0\0\0", "a snoop capture", _CONVERT),
    (b"RTSS", "a Network Monitor 1 capture", _CONVERT),
    (b"GMBU", "a Network Monitor 2 capture", _CONVERT),
    (b"\x0a\x0d\x0d\x0a", "a damaged pcapng capture", "give a whole one"),
    (bytes.fromhex("1c0001ac"), "a pcap capture of IXIA hardware", _CONVERT),
    (bytes.fromhex("ac01001c"), "a pcap capture of IXIA hardware", _CONVERT),
    (bytes.fromhex("1c0001ab"), "a pcap capture of IXIA software", _CONVERT),
    (bytes.fromhex("ab01001c"), "a pcap capture of IXIA software", _CONVERT),
    (b"\x00\x00\x00\x00", "zeros", "give a capture"),
    (b"%PDF", "a PDF document", "give a capture"),
    (b"PAR1", "a Parquet file", "give a capture"),
)
_PAGES: Final = (b"<!doctype", b"<html", b"<head", b"<?xml")


def what_it_is(head: bytes) -> tuple[str, str]:
    """What a file is that begins with ``head``, at most some kilobytes, and the remedy, for people."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(_PAGES):
        return "a web page, perhaps the server's answer instead of the file", "download the file itself"
    for start, what, remedy in _STARTS:
        if head.startswith(start):
            return what, remedy
    if not head:
        return "an empty file", "give a capture"
    return "by its first bytes", "give a capture, or convert it (editcap -F pcap IN OUT)"
