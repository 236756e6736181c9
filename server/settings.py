"""Settings of the backend and of the engine it supervises."""

from __future__ import annotations

import re
from ipaddress import ip_address
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from indexer.settings import SectionSettings
from server.grounding import MIN_GROUNDEDNESS


class ServerSettings(SectionSettings):
    """[server]"""

    section: ClassVar[str] = "server"
    model_config = SettingsConfigDict(env_prefix="NIGHTSCHOOL_SERVER__", extra="forbid", frozen=True)

    model: str = Field(
        "auto", description="base model: auto, a catalogue name, a Hugging Face id, a folder, or a .gguf file"
    )
    models_cache: Path = Field(
        Path("~/.cache/nightschool/models"), description="where base models are unpacked once, for all workspaces"
    )
    host: str = Field("127.0.0.1", description="address to listen on: loopback; or all (0.0.0.0, ::), with behind_tls")
    behind_tls: tuple[str, ...] = Field(
        (), description="names under which a proxy that ends TLS reaches us; without one only loopback is served"
    )
    trusted_proxy: str = Field(
        "", description="address of a proxy that signs people on, as user_header says; empty: none is believed"
    )
    user_header: str = Field(
        "",
        pattern=r"^([A-Za-z0-9-]+)?$",
        description="the header in which trusted_proxy names the user, who must be in the team; as in X-Forwarded-User",
    )
    requests_per_minute: int = Field(
        1200, ge=0, description="requests of each asker that are answered a minute; beyond it 429; 0: no bound"
    )
    port: int = Field(0, ge=0, le=65535, description="port to listen on; 0 takes the one used last, or a free one")
    engine_url: str = Field(
        "",
        pattern=r"^(https?://\S+)?$",
        description="an OpenAI-compatible endpoint (ends in /v1) to use in place of our own vLLM; code goes there",
    )
    engine_urls: tuple[str, ...] = Field(
        (),
        description="several such endpoints that serve the same models: a conversation stays with one while it answers",
    )
    engine_adapters: dict[str, str] = Field(
        {},
        description="repository or group -> the model that the endpoint serves for it (vLLM: --lora-modules); the "
        "repository of the best passages decides",
    )
    engine_key: str = Field(
        "",
        repr=False,
        description="its key; rather in the environment, as NIGHTSCHOOL_SERVER__ENGINE_KEY, than in a file",
    )
    engine_model: str = Field("", description="the model to ask that endpoint for; empty: the first that it lists")
    engine_timeout_s: float = Field(
        300, gt=0, description="an engine that sends nothing for so long has broken off; seconds"
    )
    engine_context: int = Field(4096, ge=512, description="the longest prompt and completion the engine holds; tokens")
    engine_kv_cache_gib: int = Field(1, ge=1, description="memory for vLLM's key-value cache on CPU; GiB")
    engine_start_timeout_s: float = Field(
        600, gt=0, description="an engine that has not answered by then has failed; seconds"
    )
    engine_memory_gib: float = Field(
        3, gt=0, description="free memory that must be there beyond twice the weights before an engine is started; GiB"
    )
    adapters: Literal["auto", "merged", "loaded"] = Field(
        "auto",
        description="how an adapter comes into the engine: loaded at run time, beside the others, or merged into the "
        "weights of a second engine; auto: loaded where there is a GPU, merged where not or where vLLM cannot load it",
    )
    engine_sleep: bool = Field(
        True, description="on a GPU start our engine so that it can sleep while a night trains (vLLM's sleep mode)"
    )
    quantization: Literal["none", "int8"] = Field(
        "none",
        description="round the weights that vLLM serves; int8: a little faster on a processor with AVX-512 VNNI, and a "
        "little worse (benchmarks/serving.md)",
    )
    eager: bool = Field(False, description="start vLLM without compilation: ready sooner, slower tokens")
    passages: int = Field(8, ge=0, le=50, description="passages searched for a question")
    max_tokens: int = Field(384, ge=1, description="longest completion when the request does not say; tokens")
    temperature: float = Field(0.0, ge=0, le=2, description="sampling temperature when the request does not say")
    code_first: Literal["auto", "always", "never"] = Field(
        "auto", description="quote the code before the model's words; auto: for base models below 3 billion parameters"
    )
    min_groundedness: float = Field(
        MIN_GROUNDEDNESS, ge=0, le=1, description="below this share of found claims the model's words never stand alone"
    )
    queue: int = Field(32, ge=1, description="questions in work or waiting at once; beyond it the answer is 429")
    body_bytes: int = Field(1 << 20, gt=0, description="longest request body; bytes")
    log_json: bool = Field(False, description="log one JSON object a line instead of text")
    feedback: bool = Field(
        False, description="write questions, answers and what became of them to .nightschool/feedback.sqlite"
    )

    @field_validator("trusted_proxy")
    @classmethod
    def is_an_address(cls, value: str) -> str:
        try:
            return value and str(ip_address(value))
        except ValueError:
            raise ValueError(f"{value} is no IP address: give that of the proxy, as 127.0.0.1") from None

    @model_validator(mode="after")
    def names_proxy_and_header(self) -> Self:
        if bool(self.trusted_proxy) != bool(self.user_header):
            raise ValueError("trusted_proxy and user_header belong together: give both, or neither")
        return self

    @field_validator("engine_urls")
    @classmethod
    def _are_urls(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        urls = tuple(url.rstrip("/") for url in urls)
        if wrong := [url for url in urls if not re.fullmatch(r"https?://\S+", url)]:
            raise ValueError(f"{wrong[0]!r} is no address: write http://host:port/v1")
        if len(set(urls)) < len(urls):
            raise ValueError("an address is there twice")
        return urls

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.engine_url and self.engine_urls:
            raise ValueError("give engine_url or engine_urls, not both")
        if self.engine_adapters and not (self.engine_url or self.engine_urls):
            raise ValueError("engine_adapters are those of engine_url or engine_urls: give one of both")
        return self
