"""Every row of the registry, called: where the request goes, whose key it carries, and what comes back."""

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote

import httpx
import pytest

from penstock import AuthenticationError, BadRequestError, acompletion, completion
from penstock.errors import APIError
from penstock.providers.auth import credential_of
from penstock.providers.registry import NOT_SERVED, PROVIDERS, ROWS, Provider
from penstock.providers.resolve import fill, owns, resolve, vary
from penstock.replay import Upstream
from penstock.replay.cases import FAMILIES

MESSAGES = [{"role": "user", "content": "Hello"}]
WHOLE = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}]}
ANSWER = {name: family.cases["hello"].single(usage=True) for name, family in FAMILIES.items()}

BEARER, API_KEY = "authorization", "api-key"

# The whole table: where `slug/m` is sent with the settings "mine", and the header that carries the key.
PLACES: dict[str, tuple[str, str]] = {
    "abliteration": ("https://api.abliteration.ai/v1/chat/completions", BEARER),
    "ai21_chat": ("https://api.ai21.com/studio/v1/chat/completions", BEARER),
    "aihubmix": ("https://aihubmix.com/v1/chat/completions", BEARER),
    "aiml": ("https://api.aimlapi.com/v1/chat/completions", BEARER),
    "amazon_nova": ("https://api.nova.amazon.com/v1/chat/completions", BEARER),
    "anthropic": ("https://api.anthropic.com/v1/messages", "x-api-key"),
    "apertis": ("https://api.stima.tech/v1/chat/completions", BEARER),
    "assemblyai": ("https://llm-gateway.assemblyai.com/v1/chat/completions", BEARER),
    "azure": ("https://mine.openai.azure.com/openai/deployments/m/chat/completions?api-version=2024-10-21", API_KEY),
    "azure_ai": ("https://mine.services.ai.azure.com/models/chat/completions?api-version=2024-05-01-preview", API_KEY),
    "azure_text": ("https://mine.openai.azure.com/openai/deployments/m/completions?api-version=2024-10-21", API_KEY),
    "baseten": ("https://inference.baseten.co/v1/chat/completions", BEARER),
    "bedrock": ("https://bedrock-runtime.mine.amazonaws.com/model/m/converse", BEARER),
    "bedrock_mantle": ("https://bedrock-mantle.us-east-1.api.aws/v1/chat/completions", BEARER),
    "cerebras": ("https://api.cerebras.ai/v1/chat/completions", BEARER),
    "charity_engine": ("https://api.charityengine.services/remotejobs/v2/inference/chat/completions", BEARER),
    "chutes": ("https://llm.chutes.ai/v1/chat/completions", BEARER),
    "clarifai": ("https://api.clarifai.com/v2/ext/openai/v1/chat/completions", BEARER),
    "cloudflare": ("https://api.cloudflare.com/client/v4/accounts/mine/ai/v1/chat/completions", BEARER),
    "codestral": ("https://codestral.mistral.ai/v1/chat/completions", BEARER),
    "cognition": ("https://api.cognition.ai/v1/chat/completions", BEARER),
    "cohere": ("https://api.cohere.com/v2/chat", BEARER),
    "cometapi": ("https://api.cometapi.com/v1/chat/completions", BEARER),
    "compactifai": ("https://api.compactif.ai/v1/chat/completions", BEARER),
    "cortecs": ("https://api.cortecs.ai/v1/chat/completions", BEARER),
    "crusoe": ("https://managed-inference-api-proxy.crusoecloud.com/v1/chat/completions", BEARER),
    "custom_openai": ("http://localhost:9000/v1/chat/completions", BEARER),
    "darkbloom": ("https://api.darkbloom.dev/v1/chat/completions", BEARER),
    "dashscope": ("https://dashscope.aliyuncs.com/compatible-mode/v1/chat/completions", BEARER),
    "databricks": ("https://mine.cloud.databricks.com/serving-endpoints/chat/completions", BEARER),
    "datarobot": ("https://app.datarobot.com/api/v2/genai/llmgw/chat/completions/", BEARER),
    "deepinfra": ("https://api.deepinfra.com/v1/openai/chat/completions", BEARER),
    "deepseek": ("https://api.deepseek.com/v1/chat/completions", BEARER),
    "docker_model_runner": ("http://localhost:12434/engines/llama.cpp/v1/chat/completions", BEARER),
    "edenai": ("https://api.edenai.run/v3/chat/completions", BEARER),
    "empiriolabs": ("https://api.empiriolabs.ai/v1/chat/completions", BEARER),
    "empower": ("https://app.empower.dev/api/v1/chat/completions", BEARER),
    "featherless_ai": ("https://api.featherless.ai/v1/chat/completions", BEARER),
    "fireworks_ai": ("https://api.fireworks.ai/inference/v1/chat/completions", BEARER),
    "friendliai": ("https://api.friendli.ai/serverless/v1/chat/completions", BEARER),
    "galadriel": ("https://api.galadriel.com/v1/chat/completions", BEARER),
    "gemini": ("https://generativelanguage.googleapis.com/v1beta/models/m:generateContent", "x-goog-api-key"),
    "gigachat": ("https://gigachat.devices.sberbank.ru/api/v1/chat/completions", BEARER),
    "github": ("https://models.github.ai/inference/chat/completions", BEARER),
    "gmi": ("https://api.gmi-serving.com/v1/chat/completions", BEARER),
    "gradient_ai": ("https://inference.do-ai.run/v1/chat/completions", BEARER),
    "groq": ("https://api.groq.com/openai/v1/chat/completions", BEARER),
    "helicone": ("https://ai-gateway.helicone.ai/chat/completions", BEARER),
    "heroku": ("https://us.inference.heroku.com/v1/chat/completions", BEARER),
    "hosted_vllm": ("http://localhost:8000/v1/chat/completions", BEARER),
    "huggingface": ("https://router.huggingface.co/v1/chat/completions", BEARER),
    "hyperbolic": ("https://api.hyperbolic.xyz/v1/chat/completions", BEARER),
    "inception": ("https://api.inceptionlabs.ai/v1/chat/completions", BEARER),
    "lambda_ai": ("https://api.lambda.ai/v1/chat/completions", BEARER),
    "lemonade": ("http://localhost:8000/api/v1/chat/completions", BEARER),
    "libertai": ("https://api.libertai.io/v1/chat/completions", BEARER),
    "litellm_proxy": ("http://localhost:4000/chat/completions", BEARER),
    "llamafile": ("http://127.0.0.1:8080/v1/chat/completions", BEARER),
    "llamagate": ("https://api.llamagate.dev/v1/chat/completions", BEARER),
    "lm_studio": ("http://localhost:1234/v1/chat/completions", BEARER),
    "maritalk": ("https://chat.maritaca.ai/api/chat/completions", BEARER),
    "meta": ("https://api.meta.ai/v1/chat/completions", BEARER),
    "meta_llama": ("https://api.llama.com/compat/v1/chat/completions", BEARER),
    "minimax": ("https://api.minimax.io/v1/chat/completions", BEARER),
    "mistral": ("https://api.mistral.ai/v1/chat/completions", BEARER),
    "modelscope": ("https://api-inference.modelscope.cn/v1/chat/completions", BEARER),
    "moonshot": ("https://api.moonshot.ai/v1/chat/completions", BEARER),
    "morph": ("https://api.morphllm.com/v1/chat/completions", BEARER),
    "nadir": ("https://api.getnadir.com/v1/chat/completions", BEARER),
    "nano-gpt": ("https://nano-gpt.com/api/v1/chat/completions", BEARER),
    "nebius": ("https://api.studio.nebius.ai/v1/chat/completions", BEARER),
    "neosantara": ("https://api.neosantara.xyz/v1/chat/completions", BEARER),
    "novita": ("https://api.novita.ai/v3/openai/chat/completions", BEARER),
    "nscale": ("https://inference.api.nscale.com/v1/chat/completions", BEARER),
    "nvidia_nim": ("https://integrate.api.nvidia.com/v1/chat/completions", BEARER),
    "oci": ("https://inference.generativeai.mine.oci.oraclecloud.com/openai/v1/chat/completions", BEARER),
    "ollama": ("http://localhost:11434/api/chat", BEARER),
    "ollama_v1": ("http://localhost:11434/v1/chat/completions", BEARER),
    "oobabooga": ("http://localhost:5000/v1/chat/completions", BEARER),
    "openai": ("https://api.openai.com/v1/chat/completions", BEARER),
    "openai_responses": ("https://api.openai.com/v1/responses", BEARER),
    "openrouter": ("https://openrouter.ai/api/v1/chat/completions", BEARER),
    "ovhcloud": ("https://oai.endpoints.kepler.ai.cloud.ovh.net/v1/chat/completions", BEARER),
    "parasail": ("https://api.parasail.io/v1/chat/completions", BEARER),
    "perplexity": ("https://api.perplexity.ai/chat/completions", BEARER),
    "pinstripes": ("https://pinstripes.io/v1/chat/completions", BEARER),
    "poe": ("https://api.poe.com/v1/chat/completions", BEARER),
    "predibase": ("https://serving.app.predibase.com/mine/deployments/v2/llms/m/generate", BEARER),
    "prism": ("https://api.prisminference.com/v1/chat/completions", BEARER),
    "publicai": ("https://api.publicai.co/v1/chat/completions", BEARER),
    "qwen_ai_platform": ("https://dashscope.aliyuncs.com/compatible-mode/v1/chat/completions", BEARER),
    "qwencloud": ("https://dashscope-intl.aliyuncs.com/compatible-mode/v1/chat/completions", BEARER),
    "ragflow": ("http://localhost:9380/api/v1/chats_openai/mine/chat/completions", BEARER),
    "reka": ("https://api.reka.ai/v1/chat/completions", BEARER),
    "replicate": ("https://api.replicate.com/v1/models/m/predictions", BEARER),
    "sagemaker": ("https://runtime.sagemaker.mine.amazonaws.com/endpoints/m/invocations", BEARER),
    "sagemaker_chat": ("https://runtime.sagemaker.mine.amazonaws.com/endpoints/m/invocations", BEARER),
    "sagemaker_nova": ("https://runtime.sagemaker.mine.amazonaws.com/endpoints/m/invocations", BEARER),
    "sail": ("https://api.sailresearch.com/v1/chat/completions", BEARER),
    "sambanova": ("https://api.sambanova.ai/v1/chat/completions", BEARER),
    "sarvam": ("https://api.sarvam.ai/v1/chat/completions", BEARER),
    "scaleway": ("https://api.scaleway.ai/v1/chat/completions", BEARER),
    "scx-ai": ("https://api.scx.ai/v1/chat/completions", BEARER),
    "snowflake": ("https://mine.snowflakecomputing.com/api/v2/cortex/v1/chat/completions", BEARER),
    "synthetic": ("https://api.synthetic.new/openai/v1/chat/completions", BEARER),
    "tencent": ("https://tokenhub-intl.tencentcloudmaas.com/v1/chat/completions", BEARER),
    "tensormesh": ("https://serverless.tensormesh.ai/v1/chat/completions", BEARER),
    "text-completion-codestral": ("https://codestral.mistral.ai/v1/fim/completions", BEARER),
    "text-completion-inception": ("https://api.inceptionlabs.ai/v1/fim/completions", BEARER),
    "text-completion-openai": ("https://api.openai.com/v1/completions", BEARER),
    "together_ai": ("https://api.together.xyz/v1/chat/completions", BEARER),
    "triton": ("http://localhost:8000/v2/models/mine/generate", BEARER),
    "v0": ("https://api.v0.dev/v1/chat/completions", BEARER),
    "veniceai": ("https://api.venice.ai/api/v1/chat/completions", BEARER),
    "vercel_ai_gateway": ("https://ai-gateway.vercel.sh/v1/chat/completions", BEARER),
    "vertex_ai": (
        "https://aiplatform.googleapis.com/v1/projects/mine/locations/global/publishers/google/models/m:generateContent",
        BEARER,
    ),
    "volcengine": ("https://ark.cn-beijing.volces.com/api/v3/chat/completions", BEARER),
    "wandb": ("https://api.inference.wandb.ai/v1/chat/completions", BEARER),
    "watsonx": ("https://mine.ml.cloud.ibm.com/ml/v1/text/chat?version=2024-10-08", BEARER),
    "watsonx_text": ("https://mine.ml.cloud.ibm.com/ml/v1/text/generation?version=2024-10-08", BEARER),
    "xai": ("https://api.x.ai/v1/chat/completions", BEARER),
    "xiaomi_mimo": ("https://api.xiaomimimo.com/v1/chat/completions", BEARER),
    "xinference": ("http://localhost:9997/v1/chat/completions", BEARER),
    "zai": ("https://api.z.ai/api/paas/v4/chat/completions", BEARER),
}

# What the caller has to say for that: these have no base URL of their own.
BASES = {
    "azure": "https://mine.openai.azure.com",
    "azure_ai": "https://mine.services.ai.azure.com",
    "azure_text": "https://mine.openai.azure.com",
    "custom_openai": "http://localhost:9000/v1",
    "databricks": "https://mine.cloud.databricks.com",
    "heroku": "https://us.inference.heroku.com",
    "hosted_vllm": "http://localhost:8000/v1",
    "litellm_proxy": "http://localhost:4000",
    "oobabooga": "http://localhost:5000",
    "ragflow": "http://localhost:9380",
    "triton": "http://localhost:8000/v2/models/mine",
    "xinference": "http://localhost:9997/v1",
}

# Where a row goes instead: model, what is given, URL, header of the key, model that is sent.
AZURE = "https://mine.openai.azure.com"
FOUNDRY = "https://mine.services.ai.azure.com"
VARIANTS: list[tuple[str, dict[str, str], str, str, str]] = [
    (
        "azure/gpt-4o",
        {"api_base": f"{AZURE}/", "api_version": "2025-01-01-preview"},
        f"{AZURE}/openai/deployments/gpt-4o/chat/completions?api-version=2025-01-01-preview",
        API_KEY,
        "gpt-4o",
    ),
    ("azure/d", {"api_base": f"{AZURE}/openai/v1/"}, f"{AZURE}/openai/v1/chat/completions", API_KEY, "d"),
    ("azure/d", {"api_base": AZURE, "api_version": "preview"}, f"{AZURE}/openai/v1/chat/completions", API_KEY, "d"),
    (
        "azure/d",
        {"api_base": f"{AZURE}/openai/deployments/other"},
        f"{AZURE}/openai/deployments/other/chat/completions?api-version=2024-10-21",
        API_KEY,
        "d",
    ),
    (
        "azure_ai/m",
        {"api_base": f"{FOUNDRY}/models", "api_version": "2025-04-01"},
        f"{FOUNDRY}/models/chat/completions?api-version=2025-04-01",
        API_KEY,
        "m",
    ),
    ("azure_ai/m", {"api_base": f"{FOUNDRY}/openai/v1"}, f"{FOUNDRY}/openai/v1/chat/completions", API_KEY, "m"),
    ("azure_ai/m", {"api_base": AZURE}, f"{AZURE}/openai/v1/chat/completions", API_KEY, "m"),
    ("azure_ai/claude-m", {"api_base": FOUNDRY}, f"{FOUNDRY}/anthropic/v1/messages", "x-api-key", "claude-m"),
    ("azure_ai/d", {"api_base": f"{FOUNDRY}/anthropic/"}, f"{FOUNDRY}/anthropic/v1/messages", "x-api-key", "d"),
    (
        "azure_ai/m",
        {"api_base": "https://mine.eastus2.models.ai.azure.com/v1"},
        "https://mine.eastus2.models.ai.azure.com/v1/chat/completions",
        BEARER,
        "m",
    ),
    (
        "azure_text/d",
        {"api_base": AZURE, "api_version": "2025-01-01-preview"},
        f"{AZURE}/openai/deployments/d/completions?api-version=2025-01-01-preview",
        API_KEY,
        "d",
    ),
    (
        "baseten/abcd1234",
        {},
        "https://model-abcd1234.api.baseten.co/environments/production/sync/v1/chat/completions",
        BEARER,
        "abcd1234",
    ),
    (
        "bedrock_mantle/m",
        {"aws_region_name": "eu-west-1"},
        "https://bedrock-mantle.eu-west-1.api.aws/v1/chat/completions",
        BEARER,
        "m",
    ),
    (
        "databricks/m",
        {"api_base": "https://mine.cloud.databricks.com/serving-endpoints"},
        "https://mine.cloud.databricks.com/serving-endpoints/chat/completions",
        BEARER,
        "m",
    ),
    (
        "datarobot/m",
        {"api_base": "https://app.datarobot.com/api/v2/"},
        "https://app.datarobot.com/api/v2/genai/llmgw/chat/completions/",
        BEARER,
        "m",
    ),
    (
        "datarobot/m",
        {"api_base": "https://app.datarobot.com/api/v2/deployments/d1"},
        "https://app.datarobot.com/api/v2/deployments/d1/",
        BEARER,
        "m",
    ),
    (
        "docker_model_runner/ai/m",
        {"api_base": "http://localhost:12434/engines/v1"},
        "http://localhost:12434/engines/v1/chat/completions",
        BEARER,
        "ai/m",
    ),
    (
        "fireworks_ai/m",
        {},
        "https://api.fireworks.ai/inference/v1/chat/completions",
        BEARER,
        "accounts/fireworks/models/m",
    ),
    (
        "fireworks_ai/accounts/me/models/m",
        {},
        "https://api.fireworks.ai/inference/v1/chat/completions",
        BEARER,
        "accounts/me/models/m",
    ),
    (
        "gradient_ai/m",
        {"api_base": "https://a1.agents.do-ai.run"},
        "https://a1.agents.do-ai.run/api/v1/chat/completions",
        BEARER,
        "m",
    ),
    ("huggingface/org/m", {}, "https://router.huggingface.co/v1/chat/completions", BEARER, "org/m"),
    ("huggingface/together/org/m", {}, "https://router.huggingface.co/v1/chat/completions", BEARER, "org/m:together"),
    (
        "huggingface/m",
        {"api_base": "https://x.endpoints.huggingface.cloud"},
        "https://x.endpoints.huggingface.cloud/v1/chat/completions",
        BEARER,
        "m",
    ),
    (
        "ragflow/chat/c1/m",
        {"api_base": "http://localhost:9380"},
        "http://localhost:9380/api/v1/chats_openai/c1/chat/completions",
        BEARER,
        "m",
    ),
    (
        "ragflow/agent/a1/org/m",
        {"api_base": "http://localhost:9380"},
        "http://localhost:9380/api/v1/agents_openai/a1/chat/completions",
        BEARER,
        "org/m",
    ),
]

CORTEX = "https://mine.snowflakecomputing.com/api/v2/cortex"
VARIANTS += [
    ("snowflake/m", {"api_base": CORTEX}, f"{CORTEX}/inference:complete", BEARER, "m"),
    (
        "snowflake/m",
        {"api_base": "https://mine.snowflakecomputing.com/"},
        f"{CORTEX}/v1/chat/completions",
        BEARER,
        "m",
    ),
]

# Who is sent `max_tokens`, or `max_completion_tokens`, as the caller wrote it; all others get `max_tokens`.
AS_GIVEN = {
    *("assemblyai", "azure", "azure_ai", "cerebras", "clarifai", "cloudflare", "cognition", "cometapi", "compactifai"),
    *("cortecs", "dashscope", "edenai", "gradient_ai", "groq", "helicone", "heroku", "hosted_vllm", "huggingface"),
    *("litellm_proxy", "llamafile", "lm_studio", "meta", "meta_llama", "minimax", "modelscope", "morph", "novita"),
    *(
        "oci",
        "oobabooga",
        "openrouter",
        "ovhcloud",
        "parasail",
        "prism",
        "qwen_ai_platform",
        "qwencloud",
        "ragflow",
        "reka",
    ),
    *("replay", "sail", "scaleway", "snowflake", "tencent", "v0", "vercel_ai_gateway", "watsonx"),
}
ALWAYS_NEW = {"openai"}

# How these are known to answer; the others are given the reference behaviour. Who cannot be asked tells unasked.
ANSWERS = {
    "ai21_chat": "reasoning",
    "azure": "empty-first-chunk",
    "cerebras": "reasoning",
    "cloudflare": "usage-zeros-last",
    "codestral": "content-parts",
    "databricks": "usage-null-counts",
    "deepseek": "reasoning",
    "gigachat": "reasoning",
    "groq": "usage-thrice",
    "mistral": "content-parts",
    "openrouter": "usage-after-finish",
    "perplexity": "usage-every-chunk",
    "predibase": "tokens",
    "sagemaker": "tokens",
    "sambanova": "reasoning-alias",
    "text-completion-codestral": "deltas",
    "triton": "text-output",
    "watsonx": "reasoning",
    "watsonx_text": "results",
    "zai": "reasoning",
}

# Who tells no usage, and who does not say why an answer ended either.
SILENT = {"replicate", "triton"}
ENDLESS = {"triton"}

# How the model must be written so that it arrives as it was.
MODELS = {"fireworks_ai": "chat/{}", "ragflow": "chat/c1/{}"}

# What is not exchanged before the call.
KEYS = {"gigachat": "access_token", "watsonx": "token"}

CHAT = [row for row in ROWS if row.family == "chat"]
each_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.slug)
each_chat_row = pytest.mark.parametrize("row", CHAT, ids=lambda row: row.slug)


def variables(row: Provider) -> set[str]:
    """Every variable that a row's credentials are read from."""
    return {*row.key_env, *(name for token in row.tokens for name in token.env)}


def secret(variable: str) -> str:
    """What a variable holds in these tests: different from all others, and part of none."""
    return f"sk-{variable.lower()}-0123456789"


def needed(row: Provider) -> dict[str, str]:
    """The settings without which there is no URL."""
    texts = [row.base_url if isinstance(row.base_url, str) else "", row.chat_path]
    return {
        setting.keyword: "mine"
        for setting in row.settings
        if setting.default is None and any(f"{{{setting.keyword}}}" in text for text in texts)
    }


def identity(row: Provider) -> dict[str, Any]:
    """What signs for those that know no key at all."""
    if row.signed_as is None or variables(row):
        return {}
    pytest.importorskip("botocore", reason="external: no botocore")
    return {"aws_access_key_id": "AKIAEXAMPLE", "aws_secret_access_key": "sk-aws-0123456789"}


def home(row: Provider) -> dict[str, Any]:
    """What it takes to call the row at its own host."""
    return {**needed(row), **({"api_base": BASES[row.slug]} if row.slug in BASES else {})}


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of any row is set."""
    for row in ROWS:
        for name in chain(variables(row), row.base_env, *(setting.env for setting in row.settings)):
            monkeypatch.delenv(name, raising=False)
    # Nor has this machine credentials of AWS: no variables, no files, no role.
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name in ("HOME", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "BOTO_CONFIG"):
        monkeypatch.setenv(name, os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    # Nor of Google.
    monkeypatch.setenv("CLOUDSDK_CONFIG", os.devnull)
    monkeypatch.setenv("NO_GCE_CHECK", "true")


@pytest.fixture
def everybodys_keys(bare: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every key variable of every row is set, each to a secret of its own."""
    for name in {name for row in ROWS for name in variables(row)}:
        monkeypatch.setenv(name, secret(name))


def spoken(request: httpx.Request) -> str:
    """The family that a request is of, by its path as a server would."""
    return next((name for name, family in FAMILIES.items() if request.url.path.endswith(family.paths)), "chat")


def exchanged(request: httpx.Request) -> str:
    """The token for a secret: here the secret itself, so that it is seen where it gets to."""
    form = dict(parse_qsl(request.content.decode()))
    return form.get("apikey") or form.get("client_secret") or request.headers["authorization"].split()[1]


Send = Callable[..., httpx.Request]


@pytest.fixture
def send() -> Iterator[Send]:
    """Calls, and gives the request."""
    requests: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.headers["content-type"] == "application/x-www-form-urlencoded":
            return httpx.Response(200, json={"access_token": exchanged(request)})
        requests.append(request)
        return httpx.Response(200, content=ANSWER[spoken(request)])

    with httpx.Client(transport=httpx.MockTransport(answer)) as client:

        def send(model: str, **options: Any) -> httpx.Request:
            completion(model, MESSAGES, client=client, max_retries=0, **options)
            return requests[-1]

        yield send


def never(request: httpx.Request) -> httpx.Response:
    raise AssertionError("sent")


def refused(error: type[APIError], model: str, **options: Any) -> APIError:
    """The error that a call ends with before a byte is sent."""
    with httpx.Client(transport=httpx.MockTransport(never)) as client, pytest.raises(error) as caught:
        completion(model, MESSAGES, client=client, **options)
    return caught.value


def carried(request: httpx.Request) -> str:
    """All that a request says."""
    return "\n".join([str(request.url), *map(str, request.headers.multi_items()), request.content.decode()])


# Names ----------------------------------------------------------------------------------------------------------------


@each_row
def test_a_row_is_found_by_slug_and_aliases(row: Provider) -> None:
    for name in (row.slug, *row.aliases):
        assert resolve(f"{name}/org/m") == (row, "org/m")
        assert resolve("m", name) == (row, "m")


@pytest.mark.parametrize(
    ("alias", "slug"),
    [
        ("ai21", "ai21_chat"),
        ("aiohttp_openai", "openai"),
        ("openai_like", "custom_openai"),
        ("together", "together_ai"),
        ("vertex_ai_beta", "vertex_ai"),
        ("vllm", "hosted_vllm"),
    ],
)
def test_names_that_people_know(alias: str, slug: str) -> None:
    assert PROVIDERS[alias].slug == slug


def test_who_is_not_served_is_said() -> None:
    assert not set(NOT_SERVED) & set(PROVIDERS), "these are served by now"
    assert list(NOT_SERVED) == sorted(NOT_SERVED)
    for name, reason in NOT_SERVED.items():
        for model, apart in ((f"{name}/m", {}), (f"{name.upper()}/m", {}), ("m", {"custom_llm_provider": name})):
            error = refused(BadRequestError, model, api_key="k", **apart)
            assert f"{name} is not served: {reason}" in error.message
            assert error.param == ("custom_llm_provider" if apart else "model")
    # A bare name is a model's, not a provider's.
    assert "not served" not in refused(BadRequestError, "petals").message


def test_no_provider_is_missing_in_silence(corpus: Path) -> None:
    table = corpus.parent / "spec" / "providers.json"
    if not table.is_file():
        pytest.skip(f"external: no table of providers at {table}")
    known = {row["slug"]: row for row in json.loads(table.read_text(encoding="utf-8"))["providers"]}
    assert set(known) == {slug for slug in known if slug in PROVIDERS} | set(NOT_SERVED)
    for slug, facts in known.items():
        row = PROVIDERS.get(slug)
        if row is not None and row.slug == slug:
            # In this order; what the table lacks comes after.
            assert row.key_env[: len(facts["key_env"])] == tuple(facts["key_env"])


# Places ---------------------------------------------------------------------------------------------------------------


def test_the_table_has_every_row() -> None:
    assert set(PLACES) == {row.slug for row in ROWS} - {"replay"}
    assert list(PLACES) == sorted(PLACES)
    assert set(BASES) == {row.slug for row in ROWS if row.base_url is None}


@pytest.mark.parametrize("slug", PLACES)
def test_where_a_row_is_and_how_it_takes_its_key(slug: str, send: Send) -> None:
    url, header = PLACES[slug]
    request = send(f"{slug}/m", api_key="passed", **home(PROVIDERS[slug]))
    assert str(request.url) == url
    assert spoken(request) == PROVIDERS[slug].family
    assert [name for name, value in request.headers.items() if "passed" in value] == [header]
    assert request.headers[header] == ("Bearer passed" if header == BEARER else "passed")


@pytest.mark.parametrize(("model", "given", "url", "header", "sent"), VARIANTS)
def test_where_a_row_goes_instead(
    model: str, given: dict[str, str], url: str, header: str, sent: str, send: Send
) -> None:
    request = send(model, api_key="passed", **given)
    assert str(request.url) == url
    assert [name for name, value in request.headers.items() if "passed" in value] == [header]
    assert json.loads(request.content)["model"] == sent


@each_row
def test_a_base_from_the_variables(row: Provider, send: Send, monkeypatch: pytest.MonkeyPatch) -> None:
    for first, name in enumerate(row.base_env):
        for later in row.base_env[first:]:
            monkeypatch.setenv(later, f"https://{later.lower().replace('_', '-')}.example/v1")
        host = send(f"{row.slug}/m", api_key="k", **needed(row)).url.host
        assert host == f"{name.lower().replace('_', '-')}.example"
        monkeypatch.delenv(name)


@pytest.mark.parametrize("slug", BASES)
def test_a_base_that_nobody_gives(slug: str) -> None:
    row = PROVIDERS[slug]
    error = refused(BadRequestError, f"{slug}/m", api_key="k", **needed(row))
    assert error.param == "api_base"
    assert all(name in error.message for name in ("api_base", *row.base_env))


@pytest.mark.parametrize("slug", [row.slug for row in ROWS if needed(row)])
def test_a_setting_that_nobody_gives(slug: str, send: Send, monkeypatch: pytest.MonkeyPatch) -> None:
    row = PROVIDERS[slug]
    given = {name: value for name, value in home(row).items() if name not in needed(row)}
    for setting in row.settings:
        if setting.keyword in needed(row):
            error = refused(BadRequestError, f"{slug}/m", api_key="k", **given)
            assert error.param == setting.keyword
            assert all(name in error.message for name in (setting.keyword, *setting.env))
            for name in setting.env:
                monkeypatch.setenv(name, "from-variable")
                assert "from-variable" in str(send(f"{slug}/m", api_key="k", **given).url)


# Keys -----------------------------------------------------------------------------------------------------------------


@each_row
def test_a_request_carries_its_own_key_and_no_other(row: Provider, send: Send, everybodys_keys: None) -> None:
    said = carried(send(f"{row.slug}/m", **home(row), **identity(row)))
    own = variables(row)
    found = {name for other in ROWS for name in variables(other) if secret(name) in said}
    assert found == set(row.key_env[:1] or sorted(own)[:1])


@each_row
def test_elsewhere_too_it_is_its_own_key_or_the_one_passed(row: Provider, send: Send, everybodys_keys: None) -> None:
    place = {**needed(row), "api_base": "https://gateway.example/v1"}
    keys = {name for other in ROWS for name in variables(other)}
    said = carried(send(f"{row.slug}/m", **place, **identity(row)))
    assert {name for name in keys if secret(name) in said} == set(row.key_env[:1])
    said = carried(send(f"{row.slug}/m", api_key="passed", **place))
    assert "passed" in said
    assert not {name for name in keys if secret(name) in said}


@each_row
def test_its_key_goes_to_no_other_vendor(row: Provider, everybodys_keys: None) -> None:
    for other in ROWS:
        if not isinstance(other.base_url, str):
            continue
        base = fill(other, other.base_url, dict.fromkeys((setting.keyword for setting in other.settings), "mine"))
        host = httpx.URL(base).host
        if not owns(other, host) or owns(row, host):
            continue
        if variables(row):
            with pytest.raises(AuthenticationError, match=host):
                credential_of(row, {}, base, os.environ)
        else:
            assert credential_of(row, {}, base, os.environ) is None
        passed = credential_of(row, {"api_key": "passed"}, base, os.environ)
        assert passed is not None
        assert "passed" in (passed.source.secrets if passed.source is not None else [passed.secret])


@each_row
def test_without_a_key_nothing_is_sent(row: Provider, send: Send) -> None:
    if not (row.key_required or row.signed_as or row.signature):
        request = send(f"{row.slug}/m", **home(row))
        assert not {BEARER, row.auth[0]} & set(request.headers)
        return
    error = refused(AuthenticationError, f"{row.slug}/m", **home(row))
    assert error.provider == row.slug
    assert all(name in error.message for name in ("api_key", *variables(row)))


@each_row
def test_without_a_key_nothing_is_sent_by_asyncio(row: Provider) -> None:
    async def main() -> None:
        async with httpx.AsyncClient(transport=httpx.MockTransport(never)) as client:
            with pytest.raises(AuthenticationError):
                await acompletion(f"{row.slug}/m", MESSAGES, stream=True, client=client, **home(row))

    if row.key_required or row.signed_as or row.signature:
        asyncio.run(main())


@pytest.mark.parametrize("row", [row for row in ROWS if row.signed_as], ids=lambda row: row.slug)
def test_what_signs_sends_no_secret(row: Provider, send: Send) -> None:
    pytest.importorskip("botocore", reason="external: no botocore")
    identity = {"aws_access_key_id": "AKIAEXAMPLE", "aws_secret_access_key": "sk-aws-0123456789"}
    request = send(f"{row.slug}/m", **identity, **home(row))
    assert "Credential=AKIAEXAMPLE/" in request.headers["authorization"]
    assert f"/{row.signed_as}/aws4_request" in request.headers["authorization"]
    assert identity["aws_secret_access_key"] not in carried(request)
    said = carried(send(f"{row.slug}/m", api_key="passed", **identity, **home(row)))
    assert "Bearer passed" in said
    assert "AKIAEXAMPLE" not in said


@each_row
def test_a_key_shows_nowhere(row: Provider) -> None:
    key = "sk-abcdef-0123456789"

    def echo(request: httpx.Request) -> httpx.Response:
        return httpx.Response(401, json={"error": {"message": f"Incorrect key: {dict(request.headers)}", "code": key}})

    with httpx.Client(transport=httpx.MockTransport(echo)) as client, pytest.raises(AuthenticationError) as caught:
        completion(f"{row.slug}/m", MESSAGES, api_key=f" {key}\n", client=client, max_retries=0, **home(row))
    error = caught.value
    shown = [str(error), repr(error), repr(error.args), repr(error.response), repr(error.body), repr(vars(error))]
    assert error.status_code == 401
    assert not [text for text in shown if key in text]


def test_a_token_of_entra_stands_in_for_the_key(send: Send, monkeypatch: pytest.MonkeyPatch) -> None:
    for slug in ("azure", "azure_ai"):
        headers = send(f"{slug}/m", azure_ad_token="t", **home(PROVIDERS[slug])).headers
        assert headers["authorization"] == "Bearer t"
        assert "api-key" not in headers
    monkeypatch.setenv("AZURE_AD_TOKEN", "from-variable")
    assert send("azure/m", **home(PROVIDERS["azure"])).headers["authorization"] == "Bearer from-variable"
    monkeypatch.setenv("AZURE_API_KEY", "k")
    assert "authorization" not in send("azure/m", **home(PROVIDERS["azure"])).headers
    assert "azure" in refused(BadRequestError, "openai/m", api_key="k", azure_ad_token="t").message


PROJECT = "https://aiplatform.googleapis.com/v1/projects/p/locations/global"
REGION = "https://us-central1-aiplatform.googleapis.com/v1/projects/p/locations/us-central1"


# Model, options, family, URL, and what the body has of model and version.
ON_VERTEX: list[tuple[str, dict[str, Any], str, str, dict[str, str]]] = [
    ("gemini-m", {}, "gemini", f"{PROJECT}/publishers/google/models/gemini-m:generateContent", {}),
    ("google/gemini-m", {}, "gemini", f"{PROJECT}/publishers/google/models/gemini-m:generateContent", {}),
    (
        "gemini-m",
        {"stream": True},
        "gemini",
        f"{PROJECT}/publishers/google/models/gemini-m:streamGenerateContent?alt=sse",
        {},
    ),
    ("123", {}, "gemini", f"{PROJECT}/endpoints/123:generateContent", {}),
    (
        "claude-m@20250929",
        {},
        "anthropic",
        f"{PROJECT}/publishers/anthropic/models/claude-m@20250929:rawPredict",
        {"anthropic_version": "vertex-2023-10-16"},
    ),
    (
        "anthropic/claude-m",
        {"stream": True},
        "anthropic",
        f"{PROJECT}/publishers/anthropic/models/claude-m:streamRawPredict",
        {"anthropic_version": "vertex-2023-10-16"},
    ),
    (
        "mistralai/mistral-m",
        {},
        "chat",
        f"{PROJECT}/publishers/mistralai/models/mistral-m:rawPredict",
        {"model": "mistral-m"},
    ),
    (
        "codestral-m",
        {"stream": True},
        "chat",
        f"{PROJECT}/publishers/mistralai/models/codestral-m:streamRawPredict",
        {"model": "codestral-m"},
    ),
    ("jamba-m", {}, "chat", f"{PROJECT}/publishers/ai21/models/jamba-m:rawPredict", {"model": "jamba-m"}),
    (
        "meta/llama-m",
        {"stream": True},
        "chat",
        f"{PROJECT}/endpoints/openapi/chat/completions",
        {"model": "meta/llama-m"},
    ),
    (
        "openai/gpt-oss-m",
        {"vertex_location": "us-central1"},
        "chat",
        f"{REGION}/endpoints/openapi/chat/completions",
        {"model": "openai/gpt-oss-m"},
    ),
    (
        "gemini-m",
        {"vertex_location": "eu"},
        "gemini",
        "https://aiplatform.eu.rep.googleapis.com/v1/projects/p/locations/eu/publishers/google/models/gemini-m:generateContent",
        {},
    ),
]


@pytest.mark.parametrize(("model", "given", "family", "url", "said"), ON_VERTEX)
def test_models_of_many_publishers_in_one_place(
    model: str, given: dict[str, Any], family: str, url: str, said: dict[str, str]
) -> None:
    requests: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(
            200,
            headers={"content-type": "application/json"},
            content=FAMILIES[family].cases["hello"].single(usage=True),
        )

    with httpx.Client(transport=httpx.MockTransport(answer)) as client:
        call = {"client": client, "api_key": "ya29.token", "vertex_project": "p", **given}
        completion(f"vertex_ai/{model}", MESSAGES, **call)
    (request,) = requests
    assert str(request.url) == url
    assert request.headers["authorization"] == "Bearer ya29.token"
    assert "anthropic-version" not in request.headers
    body = json.loads(request.content)
    assert {name: body[name] for name in ("model", "anthropic_version") if name in body} == said
    streamed = family != "gemini" and bool(given.get("stream"))
    assert body.get("stream", False) == streamed
    asked = streamed and "openapi" in url
    assert body.get("stream_options") == ({"include_usage": True} if asked else None)


def test_an_api_key_of_google_cloud_needs_no_project(send: Send) -> None:
    for key in ("AIzaSyExample", "AQ.Example"):
        request = send("vertex_ai/gemini-m", api_key=key)
        assert (
            str(request.url) == "https://aiplatform.googleapis.com/v1/publishers/google/models/gemini-m:generateContent"
        )
        assert request.headers["x-goog-api-key"] == key
        assert "authorization" not in request.headers


def test_a_location_leads_to_no_other_host(send: Send) -> None:
    url = send("vertex_ai/m", api_key="t", vertex_project="p", vertex_location="evil.example/x").url
    assert url.host == "evil.example%2fx-aiplatform.googleapis.com"


def test_an_arn_knows_its_region(send: Send) -> None:
    arn = "arn:aws:bedrock:eu-west-3:123456789012:inference-profile/eu.m"
    for way in ("", "converse/"):
        for given in ({}, {"aws_region_name": "us-east-1"}):
            url = send(f"bedrock/{way}{arn}", api_key="k", **given).url
            assert url.host == "bedrock-runtime.eu-west-3.amazonaws.com"
            assert url.raw_path == f"/model/{quote(arn, safe='')}/converse".encode()
    provider, model, values = vary(PROVIDERS["bedrock"], f"invoke/{arn}", None, {})
    assert (provider.family, model, values["aws_region_name"]) == ("invoke", arn, "eu-west-3")


def test_a_token_in_place_of_a_key(send: Send, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "from-variable")
    for given, token in (({}, "from-variable"), ({"auth_token": "t"}, "t")):
        headers = send("anthropic/m", **given).headers
        assert headers["authorization"] == f"Bearer {token}"
        assert "x-api-key" not in headers
    headers = send("anthropic/m", api_key="k").headers
    assert (headers["x-api-key"], headers.get("authorization")) == ("k", None)


def test_fields_of_the_body_that_settings_fill(send: Send) -> None:
    place: dict[str, Any] = {"watsonx_region_name": "eu-de", "token": "t"}
    for choice, name in (("auto", "tool_choice_option"), ({"type": "function"}, "tool_choice")):
        body = json.loads(send("watsonx/m", tool_choice=choice, **place).content)
        assert {key: value for key, value in body.items() if key.startswith("tool_choice")} == {name: choice}
    request = send("watsonx/org/m", project_id="p", **place)
    assert json.loads(request.content) == {"messages": MESSAGES, "model_id": "org/m", "project_id": "p"}
    request = send("watsonx/org/m", space_id="s", api_version="2025-01-01", **place)
    assert str(request.url) == "https://eu-de.ml.cloud.ibm.com/ml/v1/text/chat?version=2025-01-01"
    assert json.loads(request.content) == {"messages": MESSAGES, "model_id": "org/m", "space_id": "s"}
    request = send("watsonx/deployment/d1", project_id="p", **place)
    assert str(request.url) == "https://eu-de.ml.cloud.ibm.com/ml/v1/deployments/d1/text/chat?version=2024-10-08"
    assert json.loads(request.content) == {"messages": MESSAGES}
    headers = send("watsonx/m", watsonx_region_name="eu-de", zen_api_key="z").headers
    assert headers["authorization"] == "ZenApiKey z"


def test_the_kind_of_a_key_is_said_where_it_matters(send: Send) -> None:
    place = home(PROVIDERS["snowflake"])
    for key, sent, kind in [("j", "j", "KEYPAIR_JWT"), ("pat/p", "p", "PROGRAMMATIC_ACCESS_TOKEN")]:
        headers = send("snowflake/m", api_key=key, **place).headers
        assert headers["authorization"] == f"Bearer {sent}"
        assert headers["x-snowflake-authorization-token-type"] == kind


# Bodies ---------------------------------------------------------------------------------------------------------------


@each_chat_row
@pytest.mark.parametrize("given", ["max_tokens", "max_completion_tokens"])
def test_the_name_of_the_limit(row: Provider, given: str, send: Send) -> None:
    assert {row.slug for row in CHAT} >= AS_GIVEN | ALWAYS_NEW
    expected = given if row.slug in AS_GIVEN else "max_completion_tokens" if row.slug in ALWAYS_NEW else "max_tokens"
    body = json.loads(send(f"{row.slug}/m", api_key="k", **home(row), **{given: 5}).content)
    assert {name: value for name, value in body.items() if name.startswith("max_")} == {expected: 5}


# Streams --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream


@each_row
@pytest.mark.parametrize("world", ["blocking", "asyncio"])
def test_a_row_streams_and_its_usage_comes_last(row: Provider, world: str, upstream: Upstream) -> None:
    case = ANSWERS.get(row.slug, "hello")
    key = KEYS.get(row.slug, "api_key")
    call: dict[str, Any] = {
        "model": f"{row.slug}/{MODELS.get(row.slug, '{}').format(case)}",
        "messages": MESSAGES,
        "api_base": upstream.base_url,
        key: "k",
        "stream_options": {"include_usage": True},
        **needed(row),
    }

    async def main() -> list[Any]:
        return [chunk async for chunk in await acompletion(stream=True, **call)]

    *chunks, last = completion(stream=True, **call) if world == "blocking" else asyncio.run(main())
    asked = [request for request in upstream.stats()["requests"] if request["method"] == "POST"][-1]["body"]
    assert asked.get("stream_options") == ({"include_usage": True} if row.stream_options else None)
    assert all("usage" in chunk and chunk.usage is None for chunk in chunks)
    assert all(chunk.choices or "prompt_filter_results" in chunk for chunk in chunks)
    assert any(chunk.choices[0].delta.content for chunk in chunks if chunk.choices)
    assert chunks[-1].choices[0].finish_reason == (None if row.slug in ENDLESS else "stop")
    assert last.choices == []
    assert "usage" in last
    whole = completion(**{name: value for name, value in call.items() if name != "stream_options"})
    expected = whole.usage
    if row.family == "chat":
        expected = json.loads(FAMILIES["chat"].cases[case].single(usage=True))["usage"]
    if row.slug in SILENT:
        assert (last.usage, whole.usage) == (None, None)
        return
    assert last.usage.source == "reported"
    assert last.usage.complete
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert last.usage[name] == expected[name]


@pytest.mark.parametrize(
    ("slug", "usage", "completion_tokens"),
    [
        # 12 tokens of text beside 290 of reasoning, as the total tells.
        ("xai", {"prompt_tokens": 1, "completion_tokens": 12, "total_tokens": 303}, 302),
        # Neither count nor total includes them: only the row knows.
        ("deepinfra", {"prompt_tokens": 1, "completion_tokens": 12, "total_tokens": 13}, 302),
        ("openrouter", {"prompt_tokens": 1, "completion_tokens": 12, "total_tokens": 13}, 12),
    ],
)
def test_reasoning_is_counted_as_the_row_says(slug: str, usage: dict[str, int], completion_tokens: int) -> None:
    details = {"completion_tokens_details": {"reasoning_tokens": 290}}

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={**WHOLE, "usage": {**usage, **details}})

    with httpx.Client(transport=httpx.MockTransport(answer)) as client:
        response = completion(f"{slug}/m", MESSAGES, api_key="k", client=client)
    assert response.usage is not None
    assert response.usage.completion_tokens == completion_tokens
    assert response.usage.total_tokens == 1 + completion_tokens


@pytest.mark.parametrize("slug", ["perplexity", "snowflake"])
def test_a_stream_ends_as_the_row_says(slug: str) -> None:
    text = b'data: {"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}]}\n\n'
    finish = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    bodies = {"perplexity": text + finish, "snowflake": text + b"data: [DONE]\n\n"}

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=bodies[slug])

    place = home(PROVIDERS[slug])
    with httpx.Client(transport=httpx.MockTransport(answer)) as client:
        chunks = list(completion(f"{slug}/m", MESSAGES, stream=True, api_key="k", client=client, **place))
    assert chunks[0].choices[0].delta.content == "Hi"
