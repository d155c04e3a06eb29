"""What can be checked of the values for Kubernetes, and of the container, by reading them."""

from __future__ import annotations

import tomllib
from pathlib import Path

import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
VALUES = yaml.safe_load((DEPLOY / "kubernetes/values.yaml").read_text())


def test_profiles_differ_in_their_gpus_and_one_is_the_default() -> None:
    profiles = VALUES["singleuser"]["profileList"]
    assert len({profile["slug"] for profile in profiles}) == len(profiles)
    assert [profile["slug"] for profile in profiles if profile.get("default")] == ["cpu"]
    for profile in profiles:
        override = profile["kubespawner_override"]
        gpus = int(override.get("extra_resource_limits", {}).get("nvidia.com/gpu", 0))
        assert profile["slug"] == (f"gpu-{gpus}" if gpus else "cpu")
        assert override["environment"]["SPNB_SCALE"] in ("ci", "laptop", "node")


def test_the_image_is_that_of_this_version_and_every_mount_has_a_volume() -> None:
    project = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text("utf-8"))["project"]
    assert VALUES["singleuser"]["image"]["tag"] == project["version"]
    storage = VALUES["singleuser"]["storage"]
    volumes = {volume["name"] for volume in storage["extraVolumes"]}
    assert {mount["name"] for mount in storage["extraVolumeMounts"]} == volumes


def test_it_is_closed_until_it_is_opened() -> None:
    config = VALUES["hub"]["config"]
    assert not config["Authenticator"]["allow_all"] and not config["Authenticator"]["allowed_users"]
    assert config["JupyterHub"]["authenticator_class"] not in ("dummy", "null")
    assert VALUES["proxy"]["service"]["type"] not in ("LoadBalancer", "NodePort")
    assert VALUES["singleuser"]["allowPrivilegeEscalation"] is False


def test_the_container_runs_as_a_reader() -> None:
    lines = (DEPLOY / "container/Containerfile").read_text().splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users[-1] == "reader"
    home = VALUES["singleuser"]["storage"]["homeMountPath"]
    assert home == f"/home/{users[-1]}"
