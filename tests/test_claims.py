"""Who computes what: claims of several processes on one database."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import sqlalchemy as sa
from refusals import refused

from bench.tracking import claims as module
from bench.tracking.address import Address
from bench.tracking.claims import Claims, process_lives, this_process

ELSEWHERE = "another-boot/pid:[1] 77 1234"


@pytest.fixture
def address(tmp_path):
    return Address(f"sqlite:///{tmp_path / 'runs.db'}", tmp_path)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(module, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(module, "STALE_SECONDS", 0.4)
    monkeypatch.setattr(module, "WAIT_SECONDS", 3.0)


def write(address, **fields):
    """A row as another process would have written it."""
    Claims(address).holders()
    row = {"name": "a", "owner": "other", "host": "far, process 77", "process": ELSEWHERE, "beats": 3} | fields
    with sa.create_engine(address.uri).begin() as connection:
        connection.execute(sa.delete(module._table))
        connection.execute(sa.insert(module._table).values(**row))


def test_one_has_it_until_it_is_let_go(address):
    one, other = Claims(address), Claims(address)
    assert one.take("a") is None and one.has("a") and not other.has("a")
    holder = other.take("a")
    assert str(holder).endswith(f"process {os.getpid()}") and not other.has("a")
    assert other.take("b") is None
    assert one.elsewhere(["a", "b", "c"]).keys() == {"b"} and other.elsewhere(["a", "b", "c"]).keys() == {"a"}
    one.let_go("a")
    assert not one.has("a") and other.take("a") is None and one.holders().keys() == {"a", "b"}


def test_a_claim_of_a_process_that_is_gone_is_taken_at_once(address):
    gone = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    machine = this_process().split()[0]
    started = Path(f"/proc/{gone.pid}/stat").read_text().rpartition(")")[2].split()[19]
    write(address, process=f"{machine} {gone.pid} {started}")
    assert Claims(address).take("a") is not None
    gone.kill()  # and nobody asks after it: a zombie
    while process_lives(f"{machine} {gone.pid} {started}"):
        time.sleep(0.01)
    assert Claims(address).take("a") is None
    gone.wait()


def test_a_number_that_another_process_has_now_is_not_the_one_that_claimed(address):
    machine, number, _ = this_process().split()
    write(address, process=f"{machine} {number} 1")
    assert Claims(address).take("a") is None


def test_of_another_machine_is_taken_when_its_count_has_stood_still_while_we_looked(address, quick):
    write(address)
    claims = Claims(address)
    assert claims.take("a") is not None  # however long it stood still before
    time.sleep(0.5)
    assert claims.take("a") is None
    assert claims.holders()["a"].owner != "other"


def test_of_another_machine_that_counts_is_left_alone(address, quick):
    write(address, beats=0)
    claims, until, beats = Claims(address), time.monotonic() + 1.0, 0
    while time.monotonic() < until:
        assert claims.take("a") is not None
        time.sleep(0.1)
        beats += 1
        write(address, beats=beats)


def test_who_is_taken_over_knows_and_does_not_let_go_of_what_is_not_his(address, quick):
    one, other = Claims(address), Claims(address)
    one.take("a")
    assert other.take("a", force=True) is None
    until = time.monotonic() + 10
    while one.has("a") and time.monotonic() < until:
        time.sleep(0.01)
    assert not one.has("a") and other.has("a")
    one.let_go("a")
    assert other.holders()["a"].owner and other.has("a")


def test_what_could_not_be_let_go_of_is_nobody_s(address, monkeypatch):
    """Else a process whose database was away for a moment would wait for itself."""
    claims = Claims(address)
    claims.take("a")
    with monkeypatch.context() as patch, refused("storage-failed"):
        patch.setattr(
            claims._engine, "begin", lambda: (_ for _ in ()).throw(sa.exc.OperationalError("", {}, OSError("away")))
        )
        claims.let_go("a")
    assert claims.holders().keys() == {"a"}
    assert claims.take("a") is None and claims.still_has("a")


def test_who_asks_learns_at_once_that_another_took_it_over(address):
    one = Claims(address)
    one.take("a")
    assert one.still_has("a")
    Claims(address).take("a", force=True)
    assert one.has("a") and not one.still_has("a") and not one.has("a")


def test_beats_are_counted_for_what_is_held_alone(address, quick):
    claims = Claims(address)
    claims.take("a"), claims.take("b")
    claims.let_go("b")
    until = time.monotonic() + 10
    while claims.holders()["a"].beats < 3 and time.monotonic() < until:
        time.sleep(0.01)
    assert claims.holders()["a"].beats >= 3 and "b" not in claims.holders()


def test_one_at_a_time_and_the_wait_has_an_end(address, quick):
    inside, waited_for, order, told = threading.Event(), threading.Event(), [], []

    def first():
        with Claims(address).alone("tables"):
            inside.set()
            waited_for.wait()
            order.append("first")

    def say(line):
        told.append(line)
        waited_for.set()

    thread = threading.Thread(target=first)
    thread.start()
    inside.wait()
    with Claims(address).alone("tables", say=say):
        order.append("second")
    thread.join()
    assert order == ["first", "second"] and len(told) == 1 and "waiting for" in told[0]
    Claims(address).take("tables")
    with refused("busy", "tables"), Claims(address).alone("tables"):
        pass


def test_each_of_those_before_us_has_its_own_time_whatever_the_clock_says(address, monkeypatch):
    """Five processes that make the tables of a server on a slow machine wait for the sum of their times."""
    clock, here, now = iter(range(10**9, 0, -3600)), threading.get_ident(), 0.0
    others = [Claims(address) for _ in range(4)]
    others[0].take("tables")
    following = iter(others[1:])

    def sleep(seconds, slept=time.sleep):
        """Of this thread alone: the time goes on, and one follows the other after half of what each has."""
        nonlocal now
        if threading.get_ident() != here:
            return slept(seconds)
        before, now = now, now + seconds
        if before // (module.WAIT_SECONDS / 2) < now // (module.WAIT_SECONDS / 2):
            if (one := next(following, None)) is None:
                others[-1].let_go("tables")
            else:
                one.take("tables", force=True)
        return None

    monkeypatch.setattr(module, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(module, "WAIT_SECONDS", 1.0)
    monkeypatch.setattr(time, "time", lambda: float(next(clock)))  # is set back an hour with every look
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(time, "sleep", sleep)
    with Claims(address).alone("tables"):
        assert now >= 2 * module.WAIT_SECONDS  # more than one has


RACE = """
import sys
from pathlib import Path
from bench.tracking.address import Address
from bench.tracking.claims import Claims
claims = Claims(Address(sys.argv[1], Path(".")))
input()
print(*(number for number in range(60) if claims.take(f"cell {number}") is None), flush=True)
input()
"""


def test_processes_that_race_divide_the_names(address):
    """The table is made by all of them at once, too."""
    words = [sys.executable, "-c", RACE, address.uri]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    racers = [subprocess.Popen(words, **pipes) for _ in range(4)]
    for racer in racers:
        racer.stdin.write("\n")
        racer.stdin.flush()
    taken = [int(number) for racer in racers for number in racer.stdout.readline().split()]
    assert [racer.communicate("\n")[0] for racer in racers] == [""] * 4  # all lived to the end
    assert sorted(taken) == list(range(60))


def test_a_database_that_does_not_answer_is_one_line_without_its_password(tmp_path):
    nobody = Address("postgresql://me:secret@127.0.0.1:9/runs", tmp_path)
    with refused("storage-failed", "me:***@127.0.0.1:9") as caught:
        Claims(nobody).take("a")
    assert "secret" not in str(caught.value)
