"""The files of ``deploy/``: valid by their own tools, and true to the settings and the versions."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from tokenwire.log.open import open_store
from tokenwire.server.configuration import settings_table

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
FILES = [path for path in sorted(DEPLOY.rglob("*")) if path.is_file()]
DOCKERFILE = DEPLOY / "Dockerfile"
MANIFEST = DEPLOY / "kubernetes" / "tokenwire.yaml"
COMPOSITIONS = sorted((DEPLOY / "compose").glob("*.yaml"))
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def tool(name: str) -> Path:
    """A checker from the environment of the web frameworks."""
    path = ROOT / ".venv-hosts" / "bin" / name
    if not path.exists():
        pytest.skip(f"{name} is not installed (make .venv-hosts/.installed)")
    return path


def checked(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def resources() -> dict[str, Any]:
    return {each["kind"]: each for each in yaml.safe_load_all(MANIFEST.read_text())}


def test_manifests_follow_the_schema_of_kubernetes(tmp_path: Path) -> None:
    check = tool("kubernetes-validate")
    said = checked(check, "--strict", MANIFEST)
    assert said.count("passed") == len(resources()) == 5
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(MANIFEST.read_text().replace("periodSeconds: 5", "periodSecond: 5"))
    assert subprocess.run([check, "--strict", wrong], capture_output=True).returncode != 0


def test_the_image_has_no_known_faults() -> None:
    checked(tool("hadolint"), DOCKERFILE)


def test_the_unit_is_one_of_systemd(tmp_path: Path) -> None:
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / "tokenwire.service"
    text = (DEPLOY / "systemd" / "tokenwire.service").read_text()
    program = "/opt/tokenwire/bin/tokenwire"
    assert text.count(f"ExecStart={program} serve") == 1
    unit.write_text(text.replace(f"ExecStart={program}", f"ExecStart={shutil.which('true')}"))
    said = checked(verify, "verify", "--man=no", unit)
    assert "tokenwire.service" not in said, said


def test_variables_are_those_of_the_settings() -> None:
    names = {row.env for row in settings_table()}
    used = {
        (path.name, name)
        for path in FILES
        for name in re.findall(r"TOKENWIRE_[A-Z_]+[A-Z]", path.read_text())
    }
    assert len(used) > 10
    assert not {(file, name) for file, name in used if name not in names}


def test_versions_are_that_of_the_project() -> None:
    chart = yaml.safe_load((DEPLOY / "helm" / "tokenwire" / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == VERSION
    (container,) = resources()["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"tokenwire:{VERSION}"


def test_what_the_image_copies_is_in_its_context() -> None:
    """``.dockerignore`` leaves out everything but what it names after ``!``."""
    lines = (ROOT / ".dockerignore").read_text().split()
    assert lines[0] == "*"
    kept = {line[1:] for line in lines if line.startswith("!")}
    copied = set()
    for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE.read_text(), re.MULTILINE):
        copied |= set(line.split()[:-1])
    assert len(copied) > 5
    for name in copied:
        assert (ROOT / name).exists(), name
        assert any(fnmatch(name, each) or name.startswith(f"{each}/") for each in kept), name


def test_the_image_has_the_express_lane_in_c_and_no_compiler() -> None:
    stages = re.split(r"^FROM ", DOCKERFILE.read_text(), flags=re.MULTILINE)[1:]
    build, image = stages[-2:]
    assert "gcc" in build
    assert "--wheel --outdir /build/wheel speedups" in build
    assert "/build/wheel/*.whl" in build
    assert "COPY --from=build /opt/tokenwire /opt/tokenwire" in image
    assert not re.search(r"apt-get|gcc|pip", image)


@pytest.mark.parametrize("path", COMPOSITIONS, ids=lambda path: path.stem)
def test_compositions_give_time_to_stop_and_no_rights(path: Path) -> None:
    services = yaml.safe_load(path.read_text())["services"]
    ours = [service for service in services.values() if "build" in service]
    assert ours
    for service in ours:
        context = (path.parent / service["build"]["context"]).resolve()
        assert context == ROOT
        assert (context / service["build"]["dockerfile"]) == DOCKERFILE
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["stop_grace_period"] == "30s"


def test_the_stores_of_compositions_are_ones_of_theirs() -> None:
    """Each server's URL names the service beside it, waits for that, and asks for its disk."""
    stores = {}
    for path in COMPOSITIONS:
        services = yaml.safe_load(path.read_text())["services"]
        for service in services.values():
            if "TOKENWIRE_STORE" not in service.get("environment", {}):
                continue  # a file
            text = re.sub(
                r"\$\{\w+(:[-?][^}]*)?\}", "secret1", service["environment"]["TOKENWIRE_STORE"]
            )
            url = urlsplit(text)
            stores[path.stem] = url.scheme
            assert service["depends_on"] == {url.hostname: {"condition": "service_healthy"}}
            assert "durability=disk" in url.query
            assert "healthcheck" in services[url.hostname]
            assert type(open_store(text)).__module__.startswith(f"tokenwire.log.{path.stem}")
            if path.stem == "postgres":
                own = services[url.hostname]["environment"]
                assert (url.username, url.path) == (own["POSTGRES_USER"], f"/{own['POSTGRES_DB']}")
    assert stores == {"postgres": "postgresql", "redis": "redis"}


def test_pods_have_more_time_than_a_stop_takes() -> None:
    pod = resources()["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    before = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > before + 10
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert container["readinessProbe"]["httpGet"]["path"] == "/healthz"
    assert resources()["Service"]["spec"]["sessionAffinity"] == "None"
