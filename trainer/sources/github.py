"""Door to PyGithub: one repository's pull requests over GitHub's REST, with patience that has an end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from github import Auth, Github
from github.GithubException import GithubException, RateLimitExceededExceedsMaxWait, RateLimitExceededException
from github.GithubRetry import GithubRetry
from pydantic import BaseModel, TypeAdapter, ValidationError

from indexer.secrets import mask_secrets
from trainer.sources.github_shapes import ChangedFile, Comment, Comparison, ListedPull, Repository, Review, WholePull

PAGE = 100
_MAX_PAGES = 30  # GitHub itself ends a list of files at 3,000
_BROKEN_ANSWERS = 3
_MAX_RETRIES = "Max retries exceeded"  # urllib3's words for: tried as often as was allowed
_LATER = (429, 500, 502, 503, 504)
_MOVED = (301, 302, 307, 308)
_MOST_MOVES = 3
Shape = TypeVar("Shape", bound=BaseModel)


class GithubFailed(Exception):
    """GitHub refused, and will refuse again; the message says what to do. `status` is HTTP's, 0 without an answer."""

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status


class _Moved(GithubFailed):
    """GitHub sends us to `location`."""

    def __init__(self, location: str, status: int) -> None:
        super().__init__("GitHub sends us elsewhere, which is not followed: look at [trainer] github_url", status)
        self.location = location


class ResumeLater(Exception):
    """GitHub or the way to it is not to be had now; what was fetched is kept. The message says why, and until when."""


class BrokenAnswer(ResumeLater):
    """GitHub's answer for one path was cut short or not as expected, each time it was asked for."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a failure is waited out: at most `max_wait_s` for a limit, `retries` calls in all with growing pauses.

    The pause between calls is what GitHub asks for (no bursts, no calls side by side).
    """

    max_wait_s: float = 300
    retries: int = 5
    backoff_s: float = 1
    pause_s: float = 0.25
    timeout_s: int = 15


class _Retry(GithubRetry):
    """PyGithub's, which sleeps as long as any `Retry-After` says, and does not know a limit that comes as 429.

    PyGithub itself follows a 301 without its query, so that every page would be the first, and a loop of them a
    thousand times: none gets through to it.
    """

    def increment(self, method: Any = None, url: Any = None, response: Any = None, *rest: Any, **more: Any) -> Any:
        if response is not None and response.status in _MOVED:
            raise _Moved(response.headers.get("Location", ""), response.status)
        if response is not None and response.status in (403, 429):
            wait = _asked_wait(self, response)
            if self.max_rate_limit_wait is not None and wait > self.max_rate_limit_wait:
                raise RateLimitExceededExceedsMaxWait(response.status, {}, dict(response.headers), wait=wait)
        return super().increment(method, url, response, *rest, **more)


def _asked_wait(retry: GithubRetry, response: Any) -> float:
    if response.headers.get("Retry-After"):
        return float(retry.get_retry_after(response) or 0)
    reset = response.headers.get("X-RateLimit-Reset", "")
    if response.headers.get("X-RateLimit-Remaining") == "0" and reset.isdecimal():
        return max(0.0, int(reset) - time.time())
    return 0.0


class GithubPulls:
    """The pull requests of `repository` ("owner/name"). Every method raises `GithubFailed` or `ResumeLater`."""

    def __init__(self, repository: str, base_url: str, token: str = "", patience: Patience = Patience()) -> None:
        self.repository = repository
        self._has_token = bool(token)
        retry = _Retry(
            max_rate_limit_wait=patience.max_wait_s,
            secondary_rate_wait=60,
            total=patience.retries,
            connect=2,
            backoff_factor=patience.backoff_s,
            status_forcelist=[*_LATER, *_MOVED],
            # Beyond it we raise; urllib3's own bound would cut the wait short and try in vain.
            retry_after_max=10**9,
        )
        self._github = Github(
            auth=Auth.Token(token) if token else None,
            base_url=base_url,
            retry=retry,
            timeout=patience.timeout_s,
            seconds_between_requests=patience.pause_s or None,
            per_page=PAGE,
        )

    def __enter__(self) -> GithubPulls:
        return self

    def __exit__(self, *_: object) -> None:
        self._github.close()

    def find(self) -> str:
        """The repository's full name now; where it was renamed, its pull requests are asked for under the new one."""
        path = f"/repos/{self.repository}"
        for _ in range(_MOST_MOVES):
            try:
                self.repository = self._one(path, Repository).full_name
            except _Moved as moved:
                if not moved.location:
                    raise
                path = moved.location
            else:
                return self.repository
        raise GithubFailed(f"GitHub sends us from place to place for {self.repository}")

    def listed(self, page: int, etag: str = "") -> tuple[str, list[ListedPull], bool] | None:
        """A page (from 1) of closed and open pull requests, the newest first: its ETag, and whether there are more.

        None when it is what `etag` was given for, which costs nothing of the limit.
        """
        parameters = {"state": "all", "sort": "created", "direction": "desc", "per_page": PAGE, "page": page}
        headers, found = self._get(f"/repos/{self.repository}/pulls", list[ListedPull], parameters, etag)
        return None if found is None else (headers.get("etag", ""), found, 'rel="next"' in headers.get("link", ""))

    def whole(self, number: int) -> WholePull:
        return self._one(f"/repos/{self.repository}/pulls/{number}", WholePull)

    def files(self, number: int, at_most: int) -> list[ChangedFile]:
        return self._pages(f"/repos/{self.repository}/pulls/{number}/files", ChangedFile, at_most)

    def reviews(self, number: int) -> list[Review]:
        return self._pages(f"/repos/{self.repository}/pulls/{number}/reviews", Review)

    def review_comments(self, number: int) -> list[Comment]:
        return self._pages(f"/repos/{self.repository}/pulls/{number}/comments", Comment)

    def conversation(self, number: int) -> list[Comment]:
        return self._pages(f"/repos/{self.repository}/issues/{number}/comments", Comment)

    def compare(self, base: str, head: str) -> Comparison:
        """What `head` has that `base` had not; files whole on the first page, however many commits."""
        return self._one(f"/repos/{self.repository}/compare/{base}...{head}", Comparison, {"per_page": 1})

    def _one(self, path: str, shape: type[Shape], parameters: dict[str, Any] | None = None) -> Shape:
        answer: Shape = self._get(path, shape, parameters)[1]
        return answer

    def _pages(self, path: str, shape: type[Shape], at_most: int = PAGE * _MAX_PAGES) -> list[Shape]:
        """All pages of a list. One that shifted while it was read gives no item twice."""
        found: dict[str, Shape] = {}
        for page in range(1, _MAX_PAGES + 1):
            headers, items = self._get(path, list[shape], {"per_page": PAGE, "page": page})  # type: ignore[valid-type]
            found.update({str(getattr(item, "id", None) or getattr(item, "filename", item)): item for item in items})
            if 'rel="next"' not in headers.get("link", "") or not items or len(found) >= at_most:
                break
        return list(found.values())[:at_most]

    def _get(
        self, path: str, shape: Any, parameters: dict[str, Any] | None = None, etag: str = ""
    ) -> tuple[dict[str, str], Any]:
        """Headers and answer of one call, which is None for "not modified". A broken answer is asked for again."""
        headers = {"If-None-Match": etag} if etag else {}
        fault = ""
        for _ in range(_BROKEN_ANSWERS):
            with self._translated():
                try:
                    said, body = self._github.requester.requestJsonAndCheck("GET", path, parameters, dict(headers))
                    if etag and body is None:
                        return said, None
                    return said, TypeAdapter(shape).validate_python(body)
                except ValidationError as error:
                    fault = f"{error.error_count()} fields are not as expected"
                except ValueError as error:
                    fault = str(error)
                except OSError as error:
                    if _MAX_RETRIES in str(error):
                        raise
                    fault = type(error).__name__  # the body ended early; nobody has tried again yet
        raise BrokenAnswer(f"GitHub's answer for {path} is broken ({fault})")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except RateLimitExceededExceedsMaxWait as error:
            raise ResumeLater(f"GitHub's rate limit{_until(error.wait)}{self._hint()}") from error
        except RateLimitExceededException as error:
            raise ResumeLater(f"GitHub's rate limit{self._hint()}") from error
        except GithubException as error:
            raise self._refused(error) from error
        except OSError as error:  # what requests raises
            raise ResumeLater(_network_fault(error)) from error
        except AssertionError as error:  # PyGithub's, of a URL on another host
            raise _Moved("", 0) from error

    def _refused(self, error: GithubException) -> Exception:
        status, said = error.status, _one_line(error.message or "")
        if status == 401:
            return GithubFailed("GitHub does not accept the token (it may have expired): make a new one", 401)
        if status in (404, 410, 451):
            why = "the token may not read it" if self._has_token else "it is private: set GITHUB_TOKEN"
            return GithubFailed(f"GitHub shows no {self.repository}: there is none of this name, or {why}", status)
        if status in _LATER or status >= 500:
            return ResumeLater(f"GitHub answers {status}")
        return GithubFailed(f"GitHub refuses ({status}): {said}", status)

    def _hint(self) -> str:
        return "" if self._has_token else "; a token (GITHUB_TOKEN) raises it from 60 to 5,000 calls an hour"


def _until(wait_s: float | None) -> str:
    return f" until {datetime.now(UTC) + timedelta(seconds=wait_s):%H:%M} UTC" if wait_s else ""


def _network_fault(error: OSError) -> str:
    text = str(error)
    if "too many 429" in text:
        return "GitHub's rate limit (429)"
    if found := next((status for status in _LATER if f"too many {status}" in text), None):
        return f"GitHub answers {found}"
    return f"GitHub is not reached ({type(error).__name__})"


def _one_line(error: object) -> str:
    """For people: the first line, its secrets replaced."""
    return mask_secrets((str(error).strip() or type(error).__name__).split("\n")[0][:200]).text
