"""Who a request is from: by its token, or by the header of a proxy that signs people on. Asked anew at each request."""

from __future__ import annotations

import hmac
import ipaddress
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from indexer.workspace import Workspace
from server.asker import Asker
from server.team import NAME_PATTERN, OWNER_NAME, Member, TeamError, digest, read_team, team_file

log = logging.getLogger(__name__)

OWNER = Asker(OWNER_NAME, None)
# One message for a token that never was and for one that was revoked: it must not tell which.
HOW_TO_ASK = (
    "send `Authorization: Bearer TOKEN`: your own as `nightschool team add` printed it, "
    "or the workspace's in .nightschool/token"
)
Headers = Iterable[tuple[bytes, bytes]]


class Unknown(Exception):
    """Nobody we know asks so. `status` 401: no token or a wrong one; 403: signed on, and not in the team."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Caller:
    """An asker, and the member of the team that they are; None: the owner, or who asks in this process."""

    asker: Asker
    member: Member | None = None

    @property
    def is_owner(self) -> bool:
        return self.asker.name == OWNER_NAME


@dataclass(frozen=True, slots=True)
class SignOn:
    """A proxy that signs people on: its own address, and the header (lower case) in which it names them."""

    address: str
    header: bytes

    def name(self, peer: str, headers: Headers) -> str | None:
        """Whom the proxy names; None when the request is not the proxy's, or names nobody.

        `peer` is the socket's other end. Raises `Unknown` when two are named: the proxy has let one of theirs through.
        """
        if not _is_same_address(peer, self.address):
            return None
        named = [value.strip() for name, value in headers if name.lower() == self.header]
        if len(named) > 1:
            raise Unknown(403, "the proxy named two users: let it replace the header, not add to it")
        return named[0].decode("utf-8", "replace") or None if named else None


def _is_same_address(peer: str, wanted: str) -> bool:
    try:
        here = ipaddress.ip_address(peer)
    except ValueError:  # a socket without an address
        return False
    # What comes by IPv4 to a socket for both is written ::ffff:10.0.0.1.
    return (getattr(here, "ipv4_mapped", None) or here) == ipaddress.ip_address(wanted)


class Roster:
    """The owner's token, the team as its file stands, and the proxy. A file that is bad lets nobody of the team in."""

    def __init__(
        self,
        workspace: Workspace,
        token: str,
        sign_on: SignOn | None = None,
        groups: Callable[[], Mapping[str, frozenset[str]]] = dict,
    ) -> None:
        self._workspace = workspace
        self._token = token.encode()
        self._sign_on = sign_on
        self._groups = groups
        self._seen: tuple[int, ...] | None = None
        self._members: tuple[Member, ...] = ()

    def who(self, peer: str, headers: Headers) -> Caller:
        """Who sends this request. Raises `Unknown`."""
        headers = list(headers)
        if self._sign_on and (name := self._sign_on.name(peer, headers)):
            member = self.find(name) if re.fullmatch(NAME_PATTERN, name) else None
            if member is None:
                raise Unknown(403, "you are signed on, and not in this backend's team: ask its owner")
            return self._caller(member)
        # Bytes, because compare_digest raises for text that is not ASCII.
        scheme, _, token = next((value for name, value in headers if name.lower() == b"authorization"), b"").partition(
            b" "
        )
        if scheme.lower() != b"bearer" or (caller := self._by_token(token.strip())) is None:
            raise Unknown(401, HOW_TO_ASK)
        return caller

    def has_a_team(self) -> bool:
        """Whether anybody but the owner may ask, or may believe so."""
        return self._sign_on is not None or team_file(self._workspace).exists()

    def find(self, name: str) -> Member | None:
        """The member of this name, now."""
        return next((member for member in self.members() if member.name == name), None)

    def asker(self, name: str) -> Asker | None:
        """Who asks under this name, now."""
        if name == OWNER_NAME:
            return OWNER
        member = self.find(name)
        return None if member is None else self._caller(member).asker

    def is_still(self, caller: Caller) -> bool:
        """Whether the caller is who they were and may read what they could: what they get goes on only so long."""
        if caller.member is None:
            return True
        now = self.find(caller.member.name)
        if now is None or now.token_sha256 != caller.member.token_sha256:
            return False
        may, could = self._caller(now).asker.repositories, caller.asker.repositories
        return may is None or (could is not None and could <= may)

    def members(self) -> tuple[Member, ...]:
        """The team as its file stands now; read again only when the file has changed."""
        if (seen := self._sign()) != self._seen:
            self._seen = seen
            try:
                self._members = read_team(self._workspace).members
            except TeamError as error:
                self._members = ()
                log.error("nobody of the team is let in: %s", error)
        return self._members

    def _by_token(self, token: bytes) -> Caller | None:
        if hmac.compare_digest(token, self._token):
            return Caller(OWNER)
        given = digest(token).encode()
        # All of them, whoever it is: the time it takes says nothing.
        found = [member for member in self.members() if hmac.compare_digest(member.token_sha256.encode(), given)]
        return self._caller(found[0]) if found else None

    def _caller(self, member: Member) -> Caller:
        return Caller(Asker(member.name, member.may_read(self._groups())), member)

    def _sign(self) -> tuple[int, ...]:
        """What any change of the file changes, of its mode too."""
        try:
            about = team_file(self._workspace).stat()
        except OSError:
            return ()
        return about.st_ino, about.st_mtime_ns, about.st_ctime_ns, about.st_size, about.st_mode
