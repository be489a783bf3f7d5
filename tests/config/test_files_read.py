"""Files of the configuration that were changed since they were read."""

from __future__ import annotations

import os
from pathlib import Path

from cvpnd.config import load
from cvpnd.config.loading import files_read

TOML = """
[[directory]]
id = "corp"
type = "openldap"
servers = ["ldaps://dc1.example.com"]
bind_dn = "cn=cvpnd,dc=example,dc=com"
bind_password_file = "password"
user_base = "dc=example,dc=com"
"""


def test_what_was_changed_is_told_and_what_was_merely_touched_or_written_again_is_not(tmp_path: Path) -> None:
    path, password = tmp_path / "cvpnd.toml", tmp_path / "password"
    path.write_text(TOML)
    password.write_text("right")
    config = load(path)
    path.write_text(TOML + "# changed between reading it and looking at it first\n")
    files = files_read(config)
    assert list(files.changed()) == [path]
    path.write_text(TOML)
    os.utime(password, (0, 0))
    assert files.changed() == {}
    password.write_text("wrong")
    os.utime(password, (7, 7))
    assert files.changed() == {password: 7} and files.changed() == {password: 7}
    password.unlink()
    assert files.changed() == {password: None}
    password.write_text("right")
    assert files.changed() == {}
