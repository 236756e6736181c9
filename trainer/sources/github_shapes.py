"""What GitHub's REST answers, as far as we read it. Whatever may be missing or null there is so here."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict

from trainer.sources.commits import is_bot


class _Shape(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class User(_Shape):
    """`null` in place of it is a deleted user."""

    login: str
    type: str = "User"


class Authored(_Shape):
    """What somebody wrote."""

    user: User | None = None
    author_association: str = "NONE"

    @property
    def by_bot(self) -> bool:
        return self.user is not None and (self.user.type == "Bot" or is_bot(self.user.login))


class Head(_Shape):
    sha: str = ""


class ListedPull(Authored):
    """A pull request in a list."""

    number: int
    title: str | None = ""
    html_url: str = ""
    body: str | None = None
    created_at: datetime
    updated_at: datetime
    merged_at: datetime | None = None
    head: Head = Head()


class WholePull(ListedPull):
    """A pull request by itself, which has its counts."""

    changed_files: int = 0
    comments: int = 0
    review_comments: int = 0


class ChangedFile(_Shape):
    filename: str
    status: str = "modified"
    patch: str | None = None
    previous_filename: str | None = None


class Comment(Authored):
    """A comment in the conversation, or at a line of a diff."""

    id: int
    body: str | None = None
    created_at: datetime
    path: str = ""
    line: int | None = None
    original_line: int | None = None
    diff_hunk: str = ""
    original_commit_id: str = ""
    in_reply_to_id: int | None = None


class Review(Authored):
    """What a reviewer says of the whole; one that was never sent has no date."""

    id: int
    body: str | None = None
    submitted_at: datetime | None = None


class Repository(_Shape):
    full_name: str
    html_url: str = ""


class Comparison(_Shape):
    """`status` is "ahead" where the head goes on from the base."""

    status: str = ""
    files: list[ChangedFile] = []
