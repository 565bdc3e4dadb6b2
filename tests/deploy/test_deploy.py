"""What is deployed: the image's start, the Compose file and the Helm chart, as far as this machine can tell."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

import penchant
from penchant.engine import ShopConfig

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "penchant"
HELM = os.environ.get("HELM") or shutil.which("helm")
needs_helm = pytest.mark.skipif(
    HELM is None, reason="SKIPPED, NOT TESTED: no helm here (set HELM to its path)"
)


def helm(*words: str) -> str:
    done = subprocess.run([str(HELM), *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rendered(*words: str) -> list[dict[str, Any]]:
    text = helm("template", "shop", str(CHART), *words)
    return [document for document in yaml.safe_load_all(text) if document]


def test_the_start_makes_a_shop_and_a_key_once(tmp_path: Path) -> None:
    env = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PENCHANT_SHOP": str(tmp_path / "data" / "shop"),
        "PENCHANT_SETTINGS": str(DEPLOY / "shop.toml"),
        "PENCHANT_HOST": "127.0.0.1",
        "PENCHANT_PORT": "0",
        "PYTHONUNBUFFERED": "1",
    }
    secrets = []
    for _ in range(2):
        process = subprocess.Popen(
            ["sh", str(DEPLOY / "start.sh")],
            env=env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            assert process.stdout is not None
            url = next(word for word in process.stdout.readline().split() if word.startswith("http"))
            first = tmp_path / "data" / "first-key.json"
            assert first.stat().st_mode & 0o077 == 0
            secrets.append(json.loads(first.read_text())["secret"])
            assert httpx.post(url + "/v1/status", json={}).status_code == 401
            headers = {"Authorization": f"Bearer {secrets[-1]}"}
            assert httpx.post(url + "/v1/status", json={}, headers=headers).json()["name"] == "shop"
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)
        assert process.returncode == 0, "the server is the process that gets the signal"
    assert secrets[0] == secrets[1]


@pytest.mark.parametrize("name", ["shop.toml", "shop-servers.toml"])
def test_the_settings_are_settings(name: str) -> None:
    import msgspec

    config = msgspec.toml.decode((DEPLOY / name).read_bytes(), type=ShopConfig)
    assert config.name == "shop"
    assert bool(config.store.journal) == (name == "shop-servers.toml")


def test_the_image_runs_without_rights() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    last = text[text.rindex("\nFROM ") :]
    assert re.search(r"^FROM python:3\.1\d-slim$", last, re.MULTILINE)
    assert re.search(r"^USER 10001:10001$", last, re.MULTILINE)
    assert "HEALTHCHECK" in last
    assert "EXPOSE 8000" in last
    for source in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
        for name in source.split():
            assert (ROOT / name).exists(), name
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[0] == "**"  # what is not named does not come in: no shop, no secret
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    wanted = re.search(r"ARG EXTRAS=(\S+)", text)
    assert wanted is not None
    assert set(wanted[1].split(",")) <= extras.keys()


def test_the_compose_file() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    assert services.keys() == {"penchant-1", "penchant-2", "postgres", "valkey"}
    own, other = services["penchant-1"], services["penchant-2"]
    for one in (own, other):
        assert one["read_only"]
        assert one["cap_drop"] == ["ALL"]
        assert one["volumes"] == own["volumes"], "both work on one folder"
        assert one["environment"] == own["environment"]
        assert "/readyz" in one["healthcheck"]["test"][-1]
    assert own["ports"] == ["127.0.0.1:8000:8000"]
    assert other["ports"] == ["127.0.0.1:8001:8000"]
    for volume in own["volumes"]:
        source = volume.partition(":")[0]
        assert source == "data" or (DEPLOY / source).exists()
    assert set(own["depends_on"]) == {"postgres", "valkey"}
    assert other["depends_on"] == {"penchant-1": {"condition": "service_healthy"}}
    assert "healthcheck" in services["postgres"]
    assert "healthcheck" in services["valkey"]
    text = (DEPLOY / "compose.yaml").read_text()
    assert not re.search(r"PASSWORD: (?!\$\{)", text), "no password stands in the file"


def test_the_compose_file_is_what_docker_reads() -> None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True).returncode:
        pytest.skip("SKIPPED, NOT TESTED: no docker compose here")
    command = [docker, "compose", "-f", str(DEPLOY / "compose.yaml"), "config", "--quiet"]
    env = {**os.environ, "POSTGRES_PASSWORD": "x"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=60)
    assert done.returncode == 0, done.stderr


def test_the_chart_has_the_version_of_the_package() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == penchant.__version__
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    used = set()
    for path in (CHART / "templates").iterdir():
        used |= {name.split(".")[0] for name in re.findall(r"\.Values\.([\w.]+)", path.read_text())}
    assert used == values.keys(), "every value is used, and every one that is used has a default"


@needs_helm
def test_the_chart_is_linted() -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART))


@needs_helm
def test_what_the_chart_makes() -> None:
    made = {document["kind"]: document for document in rendered()}
    assert made.keys() == {"ConfigMap", "Service", "StatefulSet"}
    pod = made["StatefulSet"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert not container["securityContext"]["allowPrivilegeEscalation"]
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["image"] == f"penchant:{penchant.__version__}"
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    claims = {claim["metadata"]["name"] for claim in made["StatefulSet"]["spec"]["volumeClaimTemplates"]}
    assert mounts == {volume["name"] for volume in pod["volumes"]} | claims
    selector = made["Service"]["spec"]["selector"]
    assert selector.items() <= made["StatefulSet"]["spec"]["template"]["metadata"]["labels"].items()
    tomllib.loads(made["ConfigMap"]["data"]["shop.toml"])


@needs_helm
def test_an_open_address_needs_a_certificate() -> None:
    made = rendered(
        "--set", "ingress.enabled=true,ingress.tlsSecret=shop-tls,secret=env,storage.existingClaim=old"
    )
    assert {document["kind"] for document in made} == {"ConfigMap", "Service", "StatefulSet", "Ingress"}
    command = [str(HELM), "template", "shop", str(CHART), "--set", "ingress.enabled=true"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "certificate" in done.stderr


SERVERS = 'name = "shop"\n[store]\njournal = "$PENCHANT_JOURNAL"\nlive = "$PENCHANT_LIVE"\n'


@needs_helm
def test_two_replicas_share_one_volume(tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump({"settings": SERVERS, "replicas": 2, "storage": {"shared": True}}))
    made = {document["kind"]: document for document in rendered("--values", str(values))}
    assert made["StatefulSet"]["spec"]["replicas"] == 2
    assert "volumeClaimTemplates" not in made["StatefulSet"]["spec"], "each would have a folder of its own"
    claim = made["PersistentVolumeClaim"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    volumes = made["StatefulSet"]["spec"]["template"]["spec"]["volumes"]
    assert claim["metadata"]["name"] in {v.get("persistentVolumeClaim", {}).get("claimName") for v in volumes}
    assert made["PodDisruptionBudget"]["spec"]["maxUnavailable"] == 1
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART), "--values", str(values))


@needs_helm
@pytest.mark.parametrize(
    ("settings", "shared", "said"), [(SERVERS, False, "one volume"), ('name = "shop"\n', True, "Valkey")]
)
def test_replicas_that_could_not_work_together_are_refused(
    tmp_path: Path, settings: str, shared: bool, said: str
) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump({"settings": settings, "replicas": 2, "storage": {"shared": shared}}))
    command = [str(HELM), "template", "shop", str(CHART), "--values", str(values)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert said in done.stderr
