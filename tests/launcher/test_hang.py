"""Whether a job has hung and who holds it up, judged from signs of life."""

import json
import os
import socket
import subprocess
import sys
import threading

import pytest

from launcher.hang import find_culprits, find_stall, waits_for_others
from launcher.heartbeats import Heartbeats, RankPulse
from launcher.pulse import ADDRESS_VARIABLE, LOST_SUPERVISOR, TOKEN_VARIABLE, Pulse
from robustbert.config import FaultToleranceConfig
from robustbert.progress import Progress

LIMITS = FaultToleranceConfig(hang_timeout_s=100, startup_timeout_s=300, silence_timeout_s=50)
NOW = 1000.0
MAIN = 0x7F12
IN_COLLECTIVE = """Thread 0x0000000000007f99 (most recent call first):
  File "/x/launcher/pulse.py", line 10 in own_stacks

Thread 0x0000000000007f12 (most recent call first):
  File "/x/torch/distributed/distributed_c10d.py", line 2810 in all_reduce
  File "/x/robustbert/train/pretrain.py", line 100 in train_step
"""
AT_WORK = IN_COLLECTIVE.replace("torch/distributed/distributed_c10d.py", "numpy/core.py")


def pulse(rank, **known):
    return RankPulse(rank, f"n{rank // 2}", 100 + rank, known.pop("heard_at", NOW), known.pop("progress_at", NOW - 10), **known)


def answer(stacks):
    return {"stacks": stacks, "main_thread": MAIN}


@pytest.mark.parametrize(
    ("pulses", "started_at", "words"),
    [
        ([pulse(0, step=5), pulse(1, step=5)], 0, None),
        ([pulse(0, step=5), pulse(1, step=5, progress_at=NOW - 101)], 0, "no progress for 101 s"),
        ([pulse(0, step=None, progress_at=NOW - 101), pulse(1)], 0, None),  # before the first step there is more time
        ([pulse(0, step=None, progress_at=NOW - 301), pulse(1)], 0, "no progress for 301 s"),
        ([pulse(0, step=5), pulse(1, step=5, heard_at=NOW - 51)], 0, "no sign of life of rank 1 for 51 s"),
        ([pulse(0)], NOW - 299, None),
        ([pulse(0)], NOW - 301, "rank 1 not there 301 s after the start"),
    ],
)
def test_stall(pulses, started_at, words):
    stall = find_stall({p.rank: p for p in pulses}, 2, started_at, NOW, LIMITS)
    assert (stall and stall.reason) == words


@pytest.mark.parametrize(
    ("pulses", "stacks", "ranks", "words"),
    [
        ([pulse(0)], {}, [1, 2], "did not come"),
        ([pulse(0), pulse(1, heard_at=NOW - 9), pulse(2)], {0: IN_COLLECTIVE, 2: IN_COLLECTIVE}, [1], "no sign of life"),
        ([pulse(r, step=5 - (r == 2)) for r in range(3)], dict.fromkeys(range(3), IN_COLLECTIVE), [2], "behind"),
        ([pulse(r, step=5) for r in range(3)], {0: IN_COLLECTIVE, 1: AT_WORK, 2: IN_COLLECTIVE}, [1], "did not arrive"),
        ([pulse(r, step=5) for r in range(3)], dict.fromkeys(range(3), IN_COLLECTIVE), [0, 1, 2], "the same place"),
    ],
)
def test_culprits(pulses, stacks, ranks, words):
    found = find_culprits({p.rank: p for p in pulses}, {r: answer(s) for r, s in stacks.items()}, 3, NOW, quiet_s=3)
    assert found.ranks == ranks and words in found.why


def test_the_main_thread_alone_decides():
    assert waits_for_others(answer(IN_COLLECTIVE)) and not waits_for_others(answer(AT_WORK))
    assert not waits_for_others({"stacks": IN_COLLECTIVE, "main_thread": 0x7F99})


def test_signs_of_life_arrive_and_strangers_are_not_heard():
    with Heartbeats("secret") as heartbeats:
        environ = {ADDRESS_VARIABLE: f"127.0.0.1:{heartbeats.port}", TOKEN_VARIABLE: "secret"}
        progress = Progress()
        progress.mark("waiting for data", 7)
        mine = Pulse(3, progress, environ, on_lost=print)
        mine.start()
        stranger = Pulse(4, progress, environ | {TOKEN_VARIABLE: "guess"}, on_lost=print)
        stranger.start()
        assert eventually(lambda: heartbeats.pulses().get(3) and heartbeats.pulses()[3].step == 7)
        answers = heartbeats.collect_stacks(5)
        assert set(answers) == {3} and "test_hang.py" in answers[3]["stacks"]
        assert answers[3]["main_thread"] == threading.main_thread().ident
        for words in (b"GET / HTTP/1.0\r\n\r\n", b"1\n", b'{"token": "secret"}\n', b'{"token": "secret", "rank": 9}\n'):
            with socket.create_connection(("127.0.0.1", heartbeats.port)) as scanner:
                scanner.sendall(words)
                assert scanner.recv(1) == b"", "a stranger is not listened to"
        heard_at = heartbeats.pulses()[3].heard_at
        assert eventually(lambda: heartbeats.pulses()[3].heard_at > heard_at), "strangers must not silence the others"
        mine.say_goodbye()
        assert eventually(lambda: heartbeats.pulses()[3].has_left)
        stranger.say_goodbye()
        assert set(heartbeats.pulses()) == {3}


def test_a_process_that_loses_its_supervisor_ends_itself(tmp_path):
    program = (
        "import os, time; from launcher.pulse import *; from robustbert.progress import Progress\n"
        "pulse = Pulse(0, Progress(), os.environ, on_lost=lambda reason: print('lost:', reason, flush=True))\n"
        "pulse.silence_timeout_s = 1.0; pulse.start(); time.sleep(60)"
    )
    with Heartbeats("secret") as heartbeats:
        environ = os.environ | {ADDRESS_VARIABLE: f"127.0.0.1:{heartbeats.port}", TOKEN_VARIABLE: "secret"}
        process = subprocess.Popen([sys.executable, "-c", program], env=environ, stdout=subprocess.PIPE, text=True)
        assert eventually(lambda: 0 in heartbeats.pulses())
    output, _ = process.communicate(timeout=20)
    assert process.returncode == LOST_SUPERVISOR and "out of reach" in output


def test_a_thousand_processes_are_heard():
    with Heartbeats("secret") as heartbeats:
        connections = []
        for rank in range(1024):
            connection = socket.create_connection(("127.0.0.1", heartbeats.port))
            hello = {"rank": rank, "host": f"n{rank // 8}", "pid": rank, "token": "secret"}
            beat = {"step": 3, "phase": "saving", "count": 9, "age_s": 0.0}
            connection.sendall(f"{json.dumps(hello)}\n{json.dumps(beat)}\n".encode())
            connections.append(connection)
        assert eventually(lambda: sum(p.step == 3 for p in heartbeats.pulses().values()) == 1024)
        for connection in connections:
            connection.close()
        assert eventually(lambda: not any(p.is_connected for p in heartbeats.pulses().values()))


def eventually(condition, timeout_s: float = 10.0):
    import time

    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()
