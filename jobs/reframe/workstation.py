# ReFrame configuration of a workstation: no scheduler, mpirun. Clusters have their own.
site_configuration = {
    "systems": [
        {
            "name": "workstation",
            "hostnames": [".*"],
            "partitions": [
                {"name": "mpirun", "scheduler": "local", "launcher": "mpirun", "environs": ["builtin"]},
            ],
        }
    ],
    "environments": [{"name": "builtin"}],
}
