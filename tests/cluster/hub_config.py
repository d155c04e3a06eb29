"""What the tests change in the hub's real configuration: who may come in, and where things lie."""

import os

c = get_config()  # type: ignore[name-defined]  # noqa: F821
load_subconfig(os.environ["SPNB_TEST_CONFIG"])  # type: ignore[name-defined]  # noqa: F821

c.SharedPasswordAuthenticator.user_password = os.environ["SPNB_TEST_PASSWORD"]
c.CourseSpawner.daemon_resolver = {"n1": "127.0.0.1", "n2": "127.0.0.1"}  # no names to resolve
c.Spawner.args = ["--allow-root", "--LabApp.expose_app_in_browser=True"]
c.JupyterHub.services.append({"name": "test", "api_token": os.environ["SPNB_TEST_TOKEN"]})
c.JupyterHub.load_roles.append(
    {"name": "test", "services": ["test"], "scopes": ["servers", "admin:users", "tokens"]}
)
# So that the suite knows which processes are its own, and whose.
marks = ("SPNB_TEST_RUN", "PYTEST_CURRENT_TEST")
watched = {name: os.environ[name] for name in marks if name in os.environ}
c.Spawner.env_keep += list(watched)
for service in c.JupyterHub.services:
    service["environment"] = watched
