"""Door to detect-secrets, and our own rules: secrets become typed placeholders before anything is stored."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Any

from indexer.lines import split_lines


@dataclass(frozen=True, slots=True)
class Masked:
    """A text without its secrets: the same number of lines. `counts`: type of secret -> how many."""

    text: str
    counts: dict[str, int] = field(default_factory=dict)


# Each kind has a prefix that nothing else has; the group, where there is one, is the secret itself.
_RULES: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (kind, re.compile(rule))
    for kind, rule in (
        ("aws-access-key", r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}\b"),
        ("aws-secret-key", r"(?i)aws.{0,30}?(?:secret|sk).{0,30}?(?<![\w/+=])([A-Za-z0-9/+]{40})(?![\w/+=])"),
        ("github-token", r"\bgh[pousr]_[A-Za-z0-9]{36,255}\b"),
        ("github-token", r"\bgithub_pat_[A-Za-z0-9]{10,40}_[A-Za-z0-9]{20,80}\b"),
        ("gitlab-token", r"\bgl(?:pat|dt|rt|ptt|cbt|soat)-[\w-]{20,60}"),
        ("slack-token", r"\bxox[abeoprs]-[A-Za-z0-9-]{10,200}"),
        ("slack-token", r"\bxapp-\d-[A-Z0-9]+-\d+-[a-z0-9]{20,}"),
        ("slack-webhook", r"hooks\.slack\.com/(?:services|workflows)/([A-Za-z0-9/_]{30,})"),
        ("openai-key", r"\bsk-(?:proj|svcacct|admin)-[\w-]{20,200}"),
        ("anthropic-key", r"\bsk-ant-[\w-]{20,200}"),
        ("openai-key", r"\bsk-[A-Za-z0-9]{32,64}\b"),
        ("huggingface-token", r"\b(?:hf|api_org)_[A-Za-z]{30,40}\b"),
        ("huggingface-token", r"\bhf_[A-Za-z0-9]{30,40}\b"),
        ("google-api-key", r"\bAIza[\w-]{35}"),
        ("google-oauth", r"\bya29\.[\w-]{20,}"),
        ("google-oauth", r"\bGOCSPX-[\w-]{28}"),
        ("pypi-token", r"\bpypi-AgEI[\w-]{30,}"),
        ("npm-token", r"\bnpm_[A-Za-z0-9]{36}\b"),
        ("stripe-key", r"\b[rs]k_(?:live|test)_[A-Za-z0-9]{16,99}\b"),
        ("sendgrid-key", r"\bSG\.[\w-]{16,32}\.[\w-]{32,64}"),
        ("twilio-key", r"\b(?:SK|AC)[0-9a-f]{32}\b"),
        ("jwt", r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{8,}"),
        ("telegram-token", r"\b\d{8,10}:AA[\w-]{33}\b"),
        ("discord-token", r"\b[MNO][\w-]{23,25}\.[\w-]{6}\.[\w-]{27,38}\b"),
        ("azure-key", r"(?:AccountKey|SharedAccessKey)=([A-Za-z0-9+/]{40,88}={0,2})"),
        ("digitalocean-token", r"\bdo[opr]_v1_[0-9a-f]{64}\b"),
        ("shopify-token", r"\bshp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}\b"),
        ("databricks-token", r"\bdapi[0-9a-f]{32}(?:-\d)?\b"),
        ("vault-token", r"\bhv[sb]\.[\w-]{24,}"),
        ("age-key", r"\bAGE-SECRET-KEY-1[0-9A-Z]{58}\b"),
        ("mailgun-key", r"\bkey-[0-9a-f]{32}\b"),
        ("password-in-url", r"[a-z][a-z0-9+.-]*://[^\s/:@'\"<>{}$]{1,64}:([^\s/:@'\"<>{}$%]{6,128})@[\w.-]"),
    )
)
_PRIVATE_KEY = re.compile(
    r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----(.{40,16384}?)"
    r"-----END (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----",
    re.DOTALL,
)
# Lines that no rule can match are not looked at twice: this is 50 times cheaper than the rules.
_SUSPECT_LINE = re.compile(r"[A-Za-z0-9_+/.=-]{20}|(?i:passw|secret|token|api_?key|pwd|credential|auth)|://[^\s/]+@")
_KEYWORD = (
    r"(?:passw(?:or)?d|passphrase|pwd|secret(?:_?key)?|api_?key|access_?key|auth_?token|token|private_?key"
    r"|client_?secret|credentials?)"
)
_ASSIGNED = re.compile(
    rf"(?i)[\w.-]*{_KEYWORD}[\w]*[\"']?\]?\s*(?:=>|:=|[:=])\s*(?:[bru]?([\"'`])(?P<quoted>[^\"'`\s]{{8,200}})\1|(?P<bare>[A-Za-z0-9+/_.=~@!#%^*-]{{12,200}})\s*(?:$|[#,;]))"
)
_TOKEN = re.compile(r"(?<![\w/+.=-])[A-Za-z0-9_+/-]{24,200}={0,2}(?![\w/+.-])")
_NOT_SECRET = re.compile(
    r"(?i)example|change_?me|your|dummy|placeholder|xxxx|\*\*\*|fake|sample|redacted|test|foo|bar|secret|passw|token|<.*>|\$\{|\{\{"
    r"|^(?:none|null|true|false|undefined)$|^[a-z]+(?:[_.-][a-z]+)*\(?$|^(.)\1+$|0123456|123456|abcdef"
)
_DETECTORS = (
    ("artifactory", "ArtifactoryDetector"), ("azure_storage_key", "AzureStorageKeyDetector"),
    ("cloudant", "CloudantDetector"), ("discord", "DiscordBotTokenDetector"), ("github_token", "GitHubTokenDetector"),
    ("gitlab_token", "GitLabTokenDetector"), ("ibm_cloud_iam", "IbmCloudIamDetector"), ("jwt", "JwtTokenDetector"),
    ("mailchimp", "MailchimpDetector"), ("npm", "NpmDetector"), ("pypi_token", "PypiTokenDetector"),
    ("slack", "SlackDetector"), ("softlayer", "SoftlayerDetector"), ("square_oauth", "SquareOAuthDetector"),
    ("stripe", "StripeDetector"), ("telegram_token", "TelegramBotTokenDetector"),
)  # fmt: skip


def mask_secrets(text: str) -> Masked:
    """`text` with each secret replaced by `<secret:kind>`; line numbers stay as they are."""
    counts: Counter[str] = Counter()
    text = _mask_private_keys(text, counts)
    if not _SUSPECT_LINE.search(text):
        return Masked(text, dict(counts))
    lines = [_mask_line(line, counts) if _SUSPECT_LINE.search(line) else line for line in split_lines(text)]
    return Masked("".join(lines), dict(counts))


def _mask_private_keys(text: str, counts: Counter[str]) -> str:
    def replace(match: re.Match[str]) -> str:
        counts["private-key"] += 1
        return "<secret:private-key>" + "".join(re.findall(r"\r\n|\r|\n", match[0]))

    return _PRIVATE_KEY.sub(replace, text) if "PRIVATE KEY" in text else text


def _mask_line(line: str, counts: Counter[str]) -> str:
    for kind, secret in sorted(_find_secrets(line), key=lambda found: -len(found[1])):
        if secret in line:
            line = line.replace(secret, f"<secret:{kind}>")
            counts[kind] += 1
    return line


def _find_secrets(line: str) -> Iterator[tuple[str, str]]:
    for kind, rule in _RULES:
        for match in rule.finditer(line):
            secret = match[match.lastindex or 0]
            if kind != "password-in-url" or not _NOT_SECRET.search(secret):
                yield kind, secret
    for match in _ASSIGNED.finditer(line):
        value = match["quoted"] or match["bare"]
        if _looks_random(value, min_bits=2.8 if match["quoted"] else 3.2) and not _NOT_SECRET.search(value):
            yield "assigned", value
    for match in _TOKEN.finditer(line):
        if _is_random_token(match[0]):
            yield "high-entropy", match[0]
    for detector in _detectors():
        for secret in detector.analyze_string(line):
            if len(secret) >= 8:
                yield str(detector.secret_type).lower().replace(" ", "-"), secret


def _looks_random(value: str, min_bits: float) -> bool:
    """Letters and digits (or signs) mixed, and at least `min_bits` of Shannon entropy a character."""
    kinds = sum(bool(re.search(kind, value)) for kind in ("[a-z]", "[A-Z]", "[0-9]", r"[^\w.-]"))
    return kinds >= 2 and bool(re.search(r"[0-9]|[^\w.-]", value)) and entropy(value) >= min_bits


def _is_random_token(token: str) -> bool:
    """A token of base64 or the like that is no identifier, path, hash or word list."""
    if not (re.search("[a-z]", token) and re.search("[A-Z]", token) and len(re.findall("[0-9]", token)) >= 3):
        return False
    words = re.findall(r"[A-Z]?[a-z]{3,}|[A-Z]{3,}", token)  # an identifier is made of words, a secret is not
    return sum(map(len, words)) < 0.5 * len(token) and token.count("/") < 3 and entropy(token) >= 4.0


def entropy(value: str) -> float:
    """Shannon entropy in bits a character (C. E. Shannon, 1948)."""
    return -sum(n / len(value) * math.log2(n / len(value)) for n in Counter(value).values())


@cache
def _detectors() -> tuple[Any, ...]:
    return tuple(getattr(import_module(f"detect_secrets.plugins.{module}"), name)() for module, name in _DETECTORS)
