"""SIGTERM and Ctrl-C end a command within seconds, with one line and the exit code 143 or 130, wherever it waits.

Python runs a signal's handler in its main thread, between two instructions. While that thread waits inside a library (for other
processes, in MPI's start, in a collective) nothing happens, however long it takes. So a thread hears of the signal as well, and
ends the process if the main thread has not done it in time.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

GRACE_S = 3.0  # for the main thread to leave what it does; the thread then ends the process
_CHILDREN_GRACE_S = 0.5  # from SIGTERM to SIGKILL for child processes that are left then
_REPEAT_S = 0.1
_NUMBERS = (signal.SIGINT, signal.SIGTERM)


class Terminated(BaseException):
    """SIGTERM, raised in the main thread; Ctrl-C is KeyboardInterrupt as always."""


@contextlib.contextmanager
def ends_by_signals(program: str, last_words: Callable[[], str] = lambda: "interrupted", is_process: bool = False) -> Iterator[None]:
    """Inside, SIGINT and SIGTERM end the block, and then the program: SystemExit with 130 or 143 after a line `PROGRAM: LAST WORDS`.

    The first signal raises in the main thread, so that `finally` and `with` clean up. If they take longer than GRACE_S, or the main
    thread is inside a library, or a second signal comes, the process ends with its children at once. last_words: called then; "" says
    nothing. is_process: the block is the whole program, so all this holds until the interpreter has ended. Signals that were ignored at
    the start (nohup, a shell's background job) stay so; whoever sets other handlers inside the block gets the signals alone.
    """
    outer = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    if isinstance(outer, _Watch):  # the program's own block: it ends the program, with this block's words
        with outer.speaking(program, last_words):
            yield
        return
    watch = _Watch(program, last_words)
    former = {number: signal.getsignal(number) for number in _NUMBERS}
    for number in _NUMBERS:
        if former[number] is not signal.SIG_IGN:
            signal.signal(number, watch.receive)
    try:
        watch.start()
        yield
    except (KeyboardInterrupt, Terminated):
        if watch.received is None:  # raised by somebody else's handler
            raise
        watch.say()
        if is_process:
            end_children()
        raise SystemExit(watch.exit_code) from None
    finally:
        watch.is_over = True
        if not is_process:
            watch.stop()
            for number in _NUMBERS:
                if former[number] is not signal.SIG_IGN:
                    signal.signal(number, former[number])


class _Watch:
    """One block's handler, and the thread that hears of each signal at once."""

    def __init__(self, program: str, last_words: Callable[[], str]):
        self._program, self._last_words = program, last_words
        self.received: int | None = None
        self.is_over = False  # the program's block has ended, and the interpreter ends
        self._is_said = False
        self._lock = threading.Lock()
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)

    def start(self) -> None:
        self._former_fd = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        threading.Thread(target=self._listen, name="signals", daemon=True).start()

    def stop(self) -> None:
        signal.set_wakeup_fd(self._former_fd)
        os.write(self._writer, b"\0")  # ends the thread

    @contextlib.contextmanager
    def speaking(self, program: str, last_words: Callable[[], str]) -> Iterator[None]:
        """Inside, these are the last words."""
        former = self._program, self._last_words
        self._program, self._last_words = program, last_words
        try:
            yield
        except (KeyboardInterrupt, Terminated):
            if self.received is not None:
                self.say()
            raise
        finally:
            self._program, self._last_words = former

    @property
    def exit_code(self) -> int:
        return 128 + (self.received or signal.SIGTERM)

    def receive(self, number, frame) -> None:
        """The signal's handler, in the main thread; the second signal is the thread's.

        Not during an import: torch's C++ calls Python meanwhile and aborts at an exception. The thread sends the signal again.
        """
        if self.received is None and not self.is_over and not _is_importing(frame):
            self.received = number
            raise KeyboardInterrupt if number == signal.SIGINT else Terminated

    def say(self) -> None:
        """The last words, once."""
        with self._lock:
            if self._is_said:
                return
            self._is_said = True
            words = self._last_words()
        if words:
            with contextlib.suppress(OSError, ValueError):
                sys.stderr.write(f"{self._program}: {words}\n")
                sys.stderr.flush()

    def _listen(self) -> None:
        number = self._next_byte(None)
        while number not in _NUMBERS or signal.getsignal(number) != self.receive:
            if number == 0:
                return
            number = self._next_byte(None)
        deadline, repeats = time.monotonic() + GRACE_S, 0
        while (left_s := deadline - time.monotonic()) > 0:
            byte = self._next_byte(min(_REPEAT_S, left_s))
            if byte == 0:
                return
            if byte in _NUMBERS and repeats == 0:
                break  # the user's second
            repeats -= byte in _NUMBERS
            if byte is None and self.received is None and repeats == 0:
                repeats += 1
                signal.pthread_kill(threading.main_thread().ident, number)
        self.received = self.received or number
        with contextlib.suppress(Exception):
            self.say()
        end_children()
        os._exit(self.exit_code)

    def _next_byte(self, timeout_s: float | None) -> int | None:
        """The next signal's number, 0 at the end of the block, None if nothing comes in time."""
        import select

        ready, _, _ = select.select([self._reader], [], [], timeout_s)
        return os.read(self._reader, 1)[0] if ready else None


def _is_importing(frame) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def end_children() -> None:
    """End every child process of this one and its children, whatever they wait for; but for those in sessions of their own, made to outlive it."""
    import psutil

    with contextlib.suppress(psutil.Error):
        children = [child for child in psutil.Process().children(recursive=True) if _is_in_this_session(child.pid)]
        for child in children:
            with contextlib.suppress(psutil.Error):
                child.terminate()
        for child in psutil.wait_procs(children, timeout=_CHILDREN_GRACE_S)[1]:
            with contextlib.suppress(psutil.Error):
                child.kill()


def _is_in_this_session(pid: int) -> bool:
    try:
        return os.getsid(pid) == os.getsid(0)
    except OSError:  # gone meanwhile
        return False
