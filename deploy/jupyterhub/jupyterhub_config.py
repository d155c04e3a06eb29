"""A JupyterHub that gives readers of the course GPUs of a Slurm cluster; see ``docs/admin.md``.

    jupyterhub --config jupyterhub_config.py

Everything that depends on the place comes from the environment, with defaults that are safe: the
hub listens on loopback only, and expects a TLS proxy (nginx, Caddy, Apache) in front of it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

here = Path(__file__).parent
sys.path.insert(0, str(here))

from spawner import CourseSpawner  # noqa: E402

c = get_config()  # type: ignore[name-defined]  # noqa: F821

state = Path(os.environ.get("SPNB_HUB_STATE", "/var/lib/spnb-hub"))

# -- who may come in ------------------------------------------------------------------------------
# Accounts of the machine, and of these only those that are named. No account is made by the hub.
c.JupyterHub.authenticator_class = os.environ.get("SPNB_HUB_AUTHENTICATOR", "pam")
c.Authenticator.allowed_users = set(os.environ.get("SPNB_HUB_READERS", "").split())
c.Authenticator.admin_users = set(os.environ.get("SPNB_HUB_ADMINS", "").split())
c.Authenticator.allow_all = False
c.LocalAuthenticator.create_system_users = False

# -- where it listens -----------------------------------------------------------------------------
c.JupyterHub.bind_url = os.environ.get("SPNB_HUB_URL", "http://127.0.0.1:8000")
c.JupyterHub.hub_ip = os.environ.get("SPNB_HUB_IP", "127.0.0.1")  # jobs must reach it
c.JupyterHub.hub_port = int(os.environ.get("SPNB_HUB_PORT", "8081"))
c.ConfigurableHTTPProxy.api_url = os.environ.get("SPNB_PROXY_API", "http://127.0.0.1:8001")
c.JupyterHub.cookie_secret_file = str(state / "cookie_secret")
c.JupyterHub.db_url = f"sqlite:///{state / 'hub.sqlite'}"
c.ConfigurableHTTPProxy.pid_file = str(state / "proxy.pid")
# A job lives on when the hub is restarted, and is found again.
c.JupyterHub.cleanup_servers = False

# -- what they get --------------------------------------------------------------------------------
c.JupyterHub.spawner_class = CourseSpawner
c.CourseSpawner.ip = os.environ.get("SPNB_SERVER_IP", "127.0.0.1")
c.CourseSpawner.cores_per_gpu = os.environ.get("SPNB_CORES_PER_GPU", "8")
c.CourseSpawner.extra_lines = [
    line for line in os.environ.get("SPNB_SBATCH", "").split(";") if line.strip()
]
# The environment in which the course is installed, read-only for readers.
venv = Path(os.environ.get("SPNB_VENV", here.parents[1] / ".venv"))
c.Spawner.cmd = [str(venv / "bin" / "jupyterhub-singleuser")]
c.CourseSpawner.batchspawner_singleuser_cmd = str(venv / "bin" / "batchspawner-singleuser")
# The course lies in one place that readers cannot write to. Each works on a copy of the notebooks,
# made when a server starts, and never overwritten.
course = Path(os.environ.get("SPNB_COURSE", here.parents[1]))
c.CourseSpawner.home = os.environ.get("SPNB_READER_HOME", "")  # as /scratch/{username}
c.CourseSpawner.req_prologue = (
    f'mkdir -p "$HOME/spnb" && cp -R --no-clobber "{course}/tutorials" "$HOME/spnb/"\n'
    'cd "$HOME/spnb"'
)
c.Spawner.default_url = "/lab/tree/tutorials/00_start_here.ipynb"
# Of the hub's own environment a job sees these alone.
c.Spawner.env_keep = ["PATH", "LANG", "LC_ALL", "SLURM_CONF", "GLOO_SOCKET_IFNAME"]
c.Spawner.environment = {"SPNB_DATA": os.environ.get("SPNB_DATA", "")}
c.Spawner.start_timeout = int(os.environ.get("SPNB_START_TIMEOUT", "600"))
c.Spawner.http_timeout = 120

# -- and for how long -----------------------------------------------------------------------------
c.JupyterHub.concurrent_spawn_limit = 20
c.JupyterHub.active_server_limit = int(os.environ.get("SPNB_SERVER_LIMIT", "100"))
idle = os.environ.get("SPNB_IDLE_SECONDS", "3600")
c.JupyterHub.load_roles = [
    {
        "name": "idle-culler",
        "scopes": ["list:users", "read:users:activity", "read:servers", "delete:servers"],
        "services": ["idle-culler"],
    }
]
c.JupyterHub.services = [
    {
        "name": "idle-culler",
        "command": [sys.executable, "-m", "jupyterhub_idle_culler", f"--timeout={idle}"],
    }
]
