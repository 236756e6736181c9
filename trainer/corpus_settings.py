"""Settings of the corpus: how many conversations of each kind, and who writes those that a model has to write."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from indexer.settings import SectionSettings
from trainer.synthesis import Amounts


class CorpusSettings(SectionSettings):
    """[corpus]"""

    section: ClassVar[str] = "corpus"
    model_config = SettingsConfigDict(env_prefix="NIGHTSCHOOL_CORPUS__", extra="forbid", frozen=True)

    page_answers: int = Field(
        10, ge=0, le=100, description="question-answer pairs that a model writes for each page; needs a generator"
    )
    page_questions: bool = Field(True, description="one instruction a page, answered by the page")
    file_questions: bool = Field(True, description="one question a file, what it looks like, answered by the file")
    restatements: int = Field(
        24,
        ge=0,
        le=1000,
        description="questions a file or page: why, how, where, which, overview; answered from its text",
    )
    relations: int = Field(
        8, ge=0, le=1000, description="questions a file about what its symbols have to do with others"
    )
    retrieval: int = Field(
        200, ge=0, description="questions in the serving prompt, over passages that the search found"
    )
    conflicts: int = Field(30, ge=0, description="questions whose passage is newer than what was learnt, and wins")
    unanswerable: int = Field(100, ge=0, description="questions about what does not exist, answered by saying so")
    changes: bool = Field(True, description="commit messages and review comments, answered by the diff that followed")
    general: int = Field(
        100, ge=0, le=500, description="general coding questions, answered by the base model itself; needs a generator"
    )
    feedback: bool = Field(False, description="answers that users kept; [server] feedback writes them down")
    validation_share: float = Field(
        0.1, ge=0, lt=1, description="share of the sources whose conversations are for validation only"
    )
    generator: str = Field(
        "auto",
        pattern=r"^(auto|engine|off|https?://\S+)$",
        description=(
            "who writes: the URL (with /v1) of an OpenAI-compatible endpoint; engine: our own, started if need be; "
            "off; auto: our own where it runs already or a GPU is there"
        ),
    )
    generator_model: str = Field("", description="the model to ask for at a URL; empty: the first that it offers")
    generator_key_variable: str = Field(
        "", description="environment variable that holds the key of a URL; empty: none is sent"
    )
    generator_at_once: int = Field(8, ge=1, le=256, description="questions that the generator works on at once")

    def amounts(self) -> Amounts:
        """What is made without a model."""
        return Amounts(
            self.page_questions, self.file_questions, self.restatements, self.relations, self.changes, self.retrieval,
            self.conflicts, self.unanswerable,
        )  # fmt: skip
