"""The spawner of the hub: a reader's server as a job of Slurm, with what `options` lets through."""

from __future__ import annotations

import pwd
import re
from typing import Any

from batchspawner.batchspawner import MultiSlurmSpawner
from options import checked, form
from tornado.web import HTTPError
from traitlets import Dict, List, Unicode, default

USERNAME = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
"""Names of accounts that may stand in a command."""


class CourseSpawner(MultiSlurmSpawner):
    """Starts a reader's server as a job of Slurm, with what was chosen in the form."""

    choices = Dict(
        {"gpus": [1, 0, 2, 4, 8], "hours": [2, 1, 4, 8], "scale": ["laptop", "ci", "node"]},
        help="What each option of the form may be, its default first.",
    ).tag(config=True)

    cores_per_gpu = Unicode("8", help="Cores that a job gets for each GPU.").tag(config=True)

    gres_name = Unicode("gpu", help="Slurm's name of the GPUs.").tag(config=True)

    extra_lines = List(Unicode(), help="Further #SBATCH lines, such as a partition.").tag(
        config=True
    )

    home = Unicode(
        "", help="Folder of a reader, with {username}; empty: the home of the account."
    ).tag(config=True)

    # No sudo: the hub's own process changes to the reader's account, and can to no other.
    exec_prefix = Unicode("runuser --user {username} --").tag(config=True)

    # A server listens where the configuration says. batchspawner would reset this to 0.0.0.0.
    ip = Unicode("127.0.0.1").tag(config=True)

    batch_script = Unicode(
        """#!/bin/bash
#SBATCH --job-name=spnb-notebook
#SBATCH --output={{log}}
#SBATCH --chdir={{homedir}}
#SBATCH --export={{keepvars}}
#SBATCH --time={{hours}}:00:00
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task={{nprocs}}
{% if gres %}#SBATCH --gres={{gres}}
{% endif %}{% for line in lines %}#SBATCH {{line}}
{% endfor %}
set -euo pipefail
trap 'echo "the time is over"' TERM
export HOME={{homedir}} SPNB_SCALE={{scale}}
{{prologue}}
{{cmd}}
"""
    ).tag(config=True)

    @default("req_homedir")
    def _reader_home(self) -> str:
        return self.home.format(username=self.user.name) or pwd.getpwnam(self.user.name).pw_dir

    def options_form(self, spawner: Any = None) -> str:
        """The form."""
        return form(self.choices)

    def options_from_form(self, data: dict[str, list[str]]) -> dict[str, Any]:
        """What was sent with it, checked a first time, for a friendly page."""
        return checked(data, self.choices)

    async def start(self) -> Any:
        """Submit the job, after a check that nothing passes by."""
        try:
            options = checked(self.user_options or {}, self.choices)
        except ValueError as error:
            raise HTTPError(400, str(error)) from None
        if not USERNAME.fullmatch(self.user.name):
            raise HTTPError(400, "This name of an account cannot be used here.")
        self.user_options = options
        gpus = options["gpus"]
        self.req_nprocs = str(max(1, gpus) * int(self.cores_per_gpu))
        self.req_gres = f"{self.gres_name}:{gpus}" if gpus else ""
        return await super().start()

    def get_req_subvars(self) -> dict[str, Any]:
        """What the batch script is filled with."""
        found = super().get_req_subvars()
        log = f"{found['homedir']}/.spnb-notebook-%j.log"
        return found | {"lines": list(self.extra_lines), "log": log}
