"""Who could put other code in the place of a handler."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cvpnd.handlers.trusted_path import problem_with

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes files of others")

OTHER = 65432


@pytest.fixture
def program(open_directory: Path) -> Path:
    path = open_directory / "lib" / "posture"
    path.parent.mkdir(mode=0o755)
    path.touch(0o755)
    return path


def test_what_is_roots_alone_is_good_by_whichever_links(program: Path, open_directory: Path) -> None:
    assert problem_with(program) is None
    (open_directory / "current").symlink_to("lib/../lib")
    (open_directory / "absolute").symlink_to(program)
    for path in (open_directory / "current" / "posture", open_directory / "absolute"):
        assert problem_with(path) is None
    program.parent.chmod(0o1777)
    assert problem_with(program) is None, "nobody else can rename what is root's in there"


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777, 0o2775])
def test_whoever_may_write_anywhere_on_the_way_could_let_in_whom_they_like(
    program: Path, open_directory: Path, mode: int
) -> None:
    link = open_directory / "link"
    link.symlink_to(program)
    for place in (program, program.parent, open_directory):
        before = place.stat().st_mode
        place.chmod(mode)
        problem = f"{place} can be changed by others (mode {mode:04o}), who could let in whom they like; "
        assert problem_with(program) == problem_with(link) == f"{problem}chmod go-w {place}"
        place.chmod(before)
        os.chown(place, OTHER, -1)
        assert f"chown root {place}" in (problem_with(link) or "")
        os.chown(place, 0, -1)


def test_a_link_is_only_as_good_as_who_can_turn_it(program: Path, open_directory: Path) -> None:
    public = open_directory / "public"
    public.mkdir()
    public.chmod(0o1777)
    (public / "link").symlink_to(program.parent)
    path = public / "link" / "posture"
    assert problem_with(path) is None
    os.chown(public / "link", OTHER, OTHER, follow_symlinks=False)
    assert f"chown root {public / 'link'}" in (problem_with(path) or "")
    os.chown(public / "link", 0, 0, follow_symlinks=False)
    public.chmod(0o777)
    assert f"chmod go-w {public}" in (problem_with(path) or "")


def test_links_in_circles_and_what_is_not_there_have_an_end(open_directory: Path) -> None:
    for one, two in (("a", "b"), ("b", "a")):
        (open_directory / one).symlink_to(two)
    assert "in circles" in (problem_with(open_directory / "a") or "")
    with pytest.raises(FileNotFoundError):
        problem_with(open_directory / "nowhere" / "posture")
