# ReFrame configuration of a workstation or a container: no scheduler, mpirun. Clusters have their own.
VARIABLES = [
    ["OMPI_ALLOW_RUN_AS_ROOT", "1"],
    ["OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"],
    ["OMPI_MCA_rmaps_base_oversubscribe", "1"],
    ["OMPI_MCA_hwloc_base_binding_policy", "none"],
]
site_configuration = {
    "systems": [
        {
            "name": "workstation",
            "hostnames": [".*"],
            "partitions": [
                {"name": "mpirun", "scheduler": "local", "launcher": "mpirun", "environs": ["builtin"], "env_vars": VARIABLES},
            ],
        }
    ],
    "environments": [{"name": "builtin"}],
}
