"""The scripts for clusters run under stand-ins of what starts them."""

import json
import os
import shlex
import subprocess
import sys

import pytest
import yaml
from journeys.three_sounds import melpatch, settings, write_folder, write_run
from places import ROOT
from tiny_runs import noises
from two_processes import _free_port

from melpatch import cli

CLUSTER = ROOT / "examples" / "cluster"
# Its own flags are dropped; a copy of the command runs for each node, and one that fails ends all.
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
for ((node = 0; node < ${SLURM_JOB_NUM_NODES:-1}; node++)); do
  echo $node >> "${0%/*}/nodes"
  SLURM_NODEID=$node "$@" &
done
status=0
while wait -n; code=$?; [ $code -ne 127 ]; do [ $code -eq 0 ] || { status=$code; kill $(jobs -p); }; done
exit $status
"""
# Slow, so that whoever wants the first line alone has gone by the second.
SCONTROL = "#!/bin/sh\necho localhost\nsleep 0.3\necho another-node\n"
TORCHRUN = f'#!/bin/sh\nexec "{sys.executable}" -m torch.distributed.run "$@"\n'
PYTHON = f'#!/bin/sh\nexec "{sys.executable}" "$@"\n'
SMALL = (
    "--size nano --steps 4 --batch-size 8 --seconds 0.4 --workers 0 --evaluations 1 --stats-clips 4 "
    "--encoder.depth 1 --precision 32-true --front-end.sample-rate 8000"
)


@pytest.fixture
def cluster(tmp_path):
    """Return a function that runs a script as a cluster would, and returns how it ended."""
    programs = {"srun": SRUN, "scontrol": SCONTROL, "torchrun": TORCHRUN, "python": PYTHON}
    (tmp_path / "bin").mkdir()
    for name, text in programs.items():
        path = tmp_path / "bin" / name
        path.write_text(text)
        path.chmod(0o755)

    def run(script, *words, **variables):
        environment = os.environ | {
            "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT / "src"),
            "OMP_NUM_THREADS": "1",
            "GLOO_SOCKET_IFNAME": "lo",
            **variables,
        }
        command = ["bash", str(CLUSTER / script), *map(str, words)]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    return run


def steps_of(run):
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["step"] for line in lines if "loss" in json.loads(line)]


def test_the_script_for_slurm_pretrains_on_two_nodes_and_goes_on(cluster, tmp_path):
    noises(tmp_path / "noise")
    slurm = {
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_GPUS_ON_NODE": "1",
        "SLURM_JOB_ID": "7",
        "PORT": str(_free_port()),
    }
    words = ("pretrain.slurm", tmp_path / "noise", tmp_path / "run", *SMALL.split())
    done = cluster(*words, "--log-every", "1", **slurm)
    assert done.returncode == 0, done.stderr
    assert steps_of(tmp_path / "run")[-1] == 4
    assert (tmp_path / "run" / "model.safetensors").exists()
    assert (tmp_path / "bin" / "nodes").read_text().split() == ["0", "1"]


def test_the_script_for_slurm_ends_with_the_error_of_its_command(cluster, tmp_path):
    slurm = {
        "SLURM_JOB_NODELIST": "node1",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_GPUS_ON_NODE": "1",
        "SLURM_JOB_ID": "8",
        "PORT": str(_free_port()),
    }
    done = cluster(
        "pretrain.slurm", tmp_path / "no", tmp_path / "run", "--max-restarts", "0", **slurm
    )
    assert done.returncode != 0
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_the_script_that_embeds_an_archive_does_its_part_once(cluster, tmp_path):
    run = write_run(tmp_path / "run", settings())
    write_folder(tmp_path / "sounds")
    (tmp_path / "lists").mkdir()
    melpatch("prepare", tmp_path / "sounds", "--out", tmp_path / "lists" / "0003.csv")
    words = ("embed.slurm", run, tmp_path / "lists", tmp_path / "vectors", "--workers", "0")
    done = cluster(*words, SLURM_ARRAY_TASK_ID="3")
    assert done.returncode == 0, done.stderr
    vectors = tmp_path / "vectors" / "0003.parquet"
    before = vectors.stat().st_mtime_ns
    assert cluster(*words, SLURM_ARRAY_TASK_ID="3").returncode == 0
    assert vectors.stat().st_mtime_ns == before


def test_the_job_for_kubernetes_starts_as_many_pods_as_its_command_waits_for():
    service, job = yaml.safe_load_all((CLUSTER / "pretrain.yaml").read_text(encoding="utf-8"))
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (line,) = container["args"]
    words = shlex.split(line)
    pods = int(words[words.index("--nnodes") + 1])
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == pods
    gpus = int(words[words.index("--nproc-per-node") + 1])
    assert container["resources"]["limits"]["nvidia.com/gpu"] == gpus
    # Pods are found by the name of the job and the headless service.
    head = {entry["name"]: entry["value"] for entry in container["env"]}["HEAD"]
    assert head == f"{job['metadata']['name']}-0.{service['metadata']['name']}"
    assert pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    command = words[words.index("-m") + 2 :]
    assert "batch_size=2048" in repr(cli.parse(command[0], command[1:]))
