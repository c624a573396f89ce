"""The package's log messages: where a command writes them, and where they go in a library call."""

import logging

import pytest

from gax_batch.system.messages import redirect_messages

logger = logging.getLogger("gax_batch.runner.run")


def test_the_innermost_function_alone_gets_each_message(caplog: pytest.LogCaptureFixture) -> None:
    outer: list[str] = []
    inner: list[str] = []
    with redirect_messages(outer.append):
        logger.info("100 % of [bold]a")
        with redirect_messages(inner.append):
            logger.info("b")
            logger.debug("c")
        logger.info("d")
    assert (outer, inner) == (["100 % of [bold]a", "d"], ["b"])
    assert caplog.messages == []


def test_without_a_command_messages_follow_the_users_logging(caplog: pytest.LogCaptureFixture) -> None:
    with redirect_messages(lambda line: None):
        pass
    logger.info("nobody asked for this level")
    caplog.set_level(logging.INFO)
    logger.info("a")
    assert caplog.messages == ["a"]
    assert logging.getLogger("gax_batch").handlers == []


def test_an_error_of_the_function_is_raised_where_the_message_is_logged() -> None:
    def broken(line: str) -> None:
        raise BrokenPipeError

    with redirect_messages(broken), pytest.raises(BrokenPipeError):
        logger.info("a")
