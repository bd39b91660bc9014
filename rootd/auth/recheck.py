"""Whether somebody may log in, and whether who is logged in still may. What runs in pam's children is here.

Rule 1: a name counts only as it is spelled: no aliases, no numbers, nobody of uid 0, nobody whom names.py refuses.
Rule 2: PAM's account phase lets accounts pass that `usermod -L` has locked: the shadow field is looked at as well.
Rule 3: not being able to find out never ends a session and never confirms one (the supervisor refuses those that
        are not confirmed).

Sources: shadow(5), passwd(5), getgrouplist(3), usermod(8) -L, passwd(1) -l.
"""

from __future__ import annotations

import grp
import hashlib
import hmac
import ipaddress
import pwd

from policy.login import PASSWORD_LIMIT
from policy.names import UID_MAX, user_name
from rootd import accounts
from rootd.auth.pam import Library, Refused, Transaction, Unsure, Verdict
from rootd.config.settings import User

SHADOW = "/etc/shadow"
LOCKED = (b"!", b"*")  # how a shadow field begins that no password fits


def is_name(name: str) -> bool:
    try:
        user_name(name)
    except ValueError:
        return False
    return True


def is_password(password: str) -> bool:
    """Whether PAM may see it: C strings end at NUL, and hashing what is very long takes very long."""
    return "\0" not in password and 0 < len(password.encode()) <= PASSWORD_LIMIT


def remote_host(source: str) -> str:
    """What PAM is told of where an attempt comes from: addresses, and nothing else that the api may say."""
    try:
        return str(ipaddress.ip_address(source))
    except ValueError:
        return ""


class Work:
    """The three questions. Each is asked in a child, and raises Refused or Unsure."""

    def __init__(self, library: Library, login_service: str, account_service: str, key: bytes) -> None:
        self._library, self._login, self._account, self._key = library, login_service, account_service, key

    def password(self, user: str, password: str, source: str) -> Verdict:
        """Somebody logs in: both phases of PAM, and the shadow field."""
        find(user)
        transaction = Transaction(self._library, self._login, user, password.encode(), remote_host(source))
        transaction.authenticate()
        transaction.account()
        transaction.end()
        return self.facts(user)

    def peer(self, uid: int) -> Verdict:
        """The kernel says that it is this uid (SO_PEERCRED): the account phase alone."""
        try:
            user = pwd.getpwuid(uid).pw_name
        except KeyError:
            raise Refused("unknown user") from None
        if find(user).uid != uid:
            raise Refused("another account has this uid")
        return self.again(user)

    def again(self, user: str) -> Verdict:
        """Whether this account may still be logged in."""
        find(user)
        self.phase(user)
        return self.facts(user)

    def phase(self, user: str) -> Verdict:
        """The account phase alone."""
        transaction = Transaction(self._library, self._account, user, b"", "")
        transaction.account()
        transaction.end()
        return Verdict(True)

    def facts(self, user: str) -> Verdict:
        found = find(user)
        field = shadow_field(user)
        if field is not None and field.startswith(LOCKED):
            raise Refused("locked")
        return Verdict(True, "", True, user, found.uid, group_names(found.groups), mark(self._key, user, field))


def find(user: str) -> User:
    """Raises Refused for whoever cannot log in, whatever the password."""
    found = accounts.find_user(user) if is_name(user) else None
    if found is None:
        raise Refused("unknown user")
    if not 0 < found.uid <= UID_MAX:
        raise Refused("root does not log in here: root.sock is root's way")
    return found


def group_names(gids: tuple[int, ...]) -> tuple[str, ...]:
    """Those that a rule can name. Others, however long or odd, match none and are not told to anybody."""
    names = []
    for gid in gids:
        try:
            names.append(grp.getgrgid(gid).gr_name)
        except KeyError:
            continue
    return tuple(sorted(filter(is_name, names)))


def shadow_field(user: str) -> bytes | None:
    """The second field of the user's line; None when the password is kept elsewhere. Raises Unsure."""
    wanted = user.encode() + b":"
    try:
        with open(SHADOW, "rb") as table:
            lines = [line for line in table if line.startswith(wanted)]
    except OSError as error:
        raise Unsure(f"{SHADOW} cannot be read: {error.strerror}") from None
    if len(lines) > 1:
        raise Unsure(f"{SHADOW} has several lines for {user}")
    return lines[0].split(b":", 2)[1].rstrip(b"\n") if lines else None


def mark(key: bytes, user: str, field: bytes | None) -> str:
    """Tells that a password was changed, and nothing of the password."""
    text = user.encode() + (b"\0" if field is None else b":" + field)
    return hmac.new(key, text, hashlib.sha256).hexdigest()


def ended(uid: int, known_mark: str, verdict: Verdict) -> str:
    """Why a session is over, by what a child has found out about its user now; "" when it is not."""
    if not verdict.ok:
        return verdict.why if verdict.sure else ""
    if verdict.uid != uid:
        return "account gone"
    if not hmac.compare_digest(known_mark, verdict.mark):
        return "password changed"
    return ""
