"""Log records: their three forms, text from outside made harmless, and warnings that outsiders cannot multiply."""

import json
import logging
import os
import select
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import pytest

from cvpnd.ops.logs import JournalFormatter, JsonFormatter, RateLimited, TextFormatter, escape_controls


def record(level: int, message: str, *arguments: object, error: BaseException | None = None) -> logging.LogRecord:
    info = (type(error), error, error.__traceback__) if error else None
    return logging.LogRecord("cvpnd.test", level, __file__, 1, message, arguments, info)


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("plain ünïcode", "plain ünïcode"),
        ("a\nb\r\tc", "a\\nb\\r\\tc"),
        ("\x1b[2J\x00\x7f\x9b", "\\x1b[2J\\x00\\x7f\\x9b"),
        ("DOMAIN\\user", "DOMAIN\\user"),
        ("\u202ereversed\u2028", "\\u202ereversed\\u2028"),
        ("lone \ud800", "lone \\ud800"),
    ],
)
def test_controls_are_escaped(text: str, escaped: str) -> None:
    assert escape_controls(text) == escaped


def test_the_journal_gets_a_priority_on_every_line_and_no_forged_one() -> None:
    formatter = JournalFormatter()
    assert formatter.format(record(logging.INFO, "hello %s", "eve\n<0>forged")) == "<6>hello eve\\n<0>forged"
    assert formatter.format(record(logging.WARNING, "w")) == "<4>w"
    assert formatter.format(record(logging.DEBUG, "d")) == "<7>d"
    try:
        raise ValueError("broken\n<0>forged")
    except ValueError as error:
        lines = formatter.format(record(logging.ERROR, "failed", error=error)).splitlines()
    assert len(lines) > 2 and all(line.startswith("<3>") for line in lines)


def test_text_and_json_forms() -> None:
    text = TextFormatter().format(record(logging.WARNING, "hello %d", 7))
    assert text[8:] == " warning  hello 7"
    entry = json.loads(JsonFormatter().format(record(logging.INFO, "a\x1bb")))
    assert (entry["level"], entry["logger"], entry["message"]) == ("info", "cvpnd.test", "a\\x1bb")


def run_logging(setup: str, environment: dict[str, str] | None = None) -> str:
    script = f"""
        import logging
        from cvpnd.ops.logs import set_up_logging
        {setup}
        logging.getLogger("cvpnd").info("up")
        logging.getLogger("cvpnd").debug("detail")
        logging.getLogger("uvicorn.error").info("chatter")
        logging.getLogger("xmlschema").info("chatter")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | (environment or {}),
        timeout=30,
        check=True,
    )
    return done.stderr


def test_set_up_twice_writes_each_record_once_at_the_last_level() -> None:
    errors = run_logging('set_up_logging("debug"); set_up_logging("info", "journal")')
    assert errors == "<6>up\n"


def test_auto_is_text_unless_stderr_is_the_journals_stream() -> None:
    assert run_logging("set_up_logging()").endswith("info     up\n")
    reader, writer = os.pipe()
    status = os.fstat(writer)
    script = 'import logging; from cvpnd.ops.logs import set_up_logging; set_up_logging(); logging.info("up")'
    subprocess.run(
        [sys.executable, "-c", script],
        stderr=writer,
        env=os.environ | {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"},
        timeout=30,
        check=True,
    )
    os.close(writer)
    assert os.read(reader, 1000) == b"<6>up\n"
    os.close(reader)


FLOOD = """
    import logging, sys
    from cvpnd.ops.logs import set_up_logging
    set_up_logging(form="json")
    log = logging.getLogger("cvpnd")
    for number in range(60_000):
        log.info("line %d", number)
    print("all is logged", flush=True)
    sys.stdin.readline()
    logging.getLogger().handlers[0].flush()
    log.info("again")
"""


def flooding() -> subprocess.Popen[bytes]:
    """One whose standard error nobody reads; it has logged much when this returns."""
    command = [sys.executable, "-c", textwrap.dedent(FLOOD)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    try:
        assert select.select([process.stdout], [], [], 30)[0], "whoever logs waits for who reads"
        assert process.stdout.readline() == b"all is logged\n"
    except BaseException:
        process.kill()
        raise
    return process


def test_who_does_not_read_holds_up_nobody_who_logs_and_hears_how_much_is_lost() -> None:
    process = flooding()
    _, errors = process.communicate(b"\n", timeout=30)
    *lines, told, last = (json.loads(line)["message"] for line in errors.splitlines())
    assert len(lines) > 8000 and lines == [f"line {number}" for number in range(len(lines))]
    assert told.startswith(f"{60_000 - len(lines)} records of this log are lost here")
    assert (last, process.returncode) == ("again", 0)


def test_the_end_does_not_wait_long_for_who_does_not_read() -> None:
    process = flooding()
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(15) == 0


FAILING = """
    import logging, sys
    from cvpnd import __main__, service
    from cvpnd.ops.logs import set_up_logging
    async def serve(config):
        set_up_logging(form="json")
        for number in range(5000):
            logging.getLogger("cvpnd").info("line %d", number)
        raise RuntimeError("a mistake of ours")
    service.serve = serve
    sys.argv = ["cvpnd", "run", "--config", sys.argv[1]]
    __main__.main()
"""


def test_what_led_to_the_end_of_the_daemon_stands_before_it(tmp_path: Path) -> None:
    config = tmp_path / "cvpnd.toml"
    config.write_text("")
    command = [sys.executable, "-P", "-c", textwrap.dedent(FAILING), str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    lines = done.stderr.splitlines()
    assert json.loads(lines[4999])["message"] == "line 4999"
    assert (lines[5000], lines[-1]) == ("Traceback (most recent call last):", "RuntimeError: a mistake of ours")


FILLED = """
    import logging, resource
    from cvpnd.ops.logs import set_up_logging
    set_up_logging(form="json")
    log, handler = logging.getLogger("cvpnd"), logging.getLogger().handlers[0]
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    for number in range(30):
        log.info("line %d", number)
        handler.flush()
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    log.info("again")
"""


def test_what_a_full_disk_does_not_take_is_counted_and_half_of_a_line_is_ended(tmp_path: Path) -> None:
    path = tmp_path / "errors"
    with path.open("ab") as errors:
        subprocess.run([sys.executable, "-P", "-c", textwrap.dedent(FILLED)], stderr=errors, timeout=30, check=True)
    lines = path.read_bytes().splitlines()
    whole = 1000 // (len(lines[0]) + 1)
    half = lines.pop(whole)
    assert half and half != lines[0] and lines[0].startswith(half[:10])
    *written, told, last = (json.loads(line)["message"] for line in lines)
    assert written == [f"line {number}" for number in range(len(written))] and 5 < len(written) < 15
    assert told.startswith(f"{30 - len(written)} records of this log are lost here")
    assert last == "again"


CHATTY = """
    import logging, os
    from cvpnd.ops.logs import set_up_logging
    set_up_logging(form="json")
    os.set_blocking(2, False)
    for number in range(3000):
        logging.getLogger("cvpnd").info("line %d", number)
    print("all is logged", flush=True)
    logging.getLogger().handlers[0].flush()
"""


def test_one_that_would_not_block_is_waited_for() -> None:
    """As a terminal that another program has left so."""
    command = [sys.executable, "-P", "-c", textwrap.dedent(CHATTY)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"all is logged\n"
        _, errors = process.communicate(timeout=30)
    assert [json.loads(line)["message"] for line in errors.splitlines()] == [f"line {n}" for n in range(3000)]


INTERRUPTED = """
    import logging, sys, threading
    from cvpnd.ops import standard_error
    from cvpnd.ops.logs import set_up_logging
    log = logging.getLogger("cvpnd")
    left = {each.__code__: 20 for each in (standard_error.StandardError.emit, standard_error.StandardError._run)}
    def finalise(frame, event, what):
        if logging.root.handlers and left.get(frame.f_code):
            left[frame.f_code] -= 1
            log.warning("meanwhile")
    threading.setprofile(finalise)
    set_up_logging(form="json")
    sys.setprofile(finalise)
    for number in range(50):
        log.info("line %d", number)
    sys.setprofile(None)
    logging.getLogger().handlers[0].flush()
"""


def test_what_a_finaliser_logs_at_any_moment_of_writing_another_record_waits_for_nothing() -> None:
    """It runs wherever its object is collected: here at each call."""
    command = [sys.executable, "-P", "-c", textwrap.dedent(INTERRUPTED)]
    done = subprocess.run(command, capture_output=True, timeout=20, check=True)
    heard = Counter(json.loads(line)["message"] for line in done.stderr.splitlines())
    assert heard == {"meanwhile": 40} | {f"line {number}": 1 for number in range(50)}


def test_an_unknown_level_is_refused() -> None:
    from cvpnd.ops.logs import set_up_logging

    with pytest.raises(ValueError, match="LOUD"):
        set_up_logging("loud")


def test_warnings_of_a_kind_come_once_an_interval_with_the_number_held_back(caplog: pytest.LogCaptureFixture) -> None:
    now = [100.0]
    limited = RateLimited(logging.getLogger("cvpnd.test"), interval_s=10, clock=lambda: now[0])
    for number in range(5):
        limited.warning("flood", "bad packet from %s", number)
    limited.warning("other", "another kind")
    now[0] = 110.0
    limited.warning("flood", "bad packet from %s", 99)
    assert caplog.messages == ["bad packet from 0", "another kind", "bad packet from 99 (and 4 more like it)"]
