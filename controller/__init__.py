"""The control plane: manifests become compiled records, and those become Envoy's and the workers' state.

The files follow an edit from top to bottom:

    source.py      a directory of files, and a wake-up whenever it changes
    manifests/     bytes -> typed ModelRoutes, ModelServers and Pods, every fault with its place; pure
    selection.py   which ModelServers a pod serves, and as what; pure
    compile.py     typed objects -> records, or every problem between them; pure
    follow.py      source -> manifests -> compile -> publish, at every change; says what is wrong
    changes.py     what differs between two sets of records; pure
    publish.py     offers records to Envoy, publishes them to the store, in the order that breaks no request
    xds/           records -> Envoy's resources, served over ADS (the only importer of envoy_data_plane)
    app.py         builds all of it once and runs it; settings.py its knobs; cli.py the commands
    up/            `kvoy up`: this, the workers, Valkey and Envoy on one machine

A set of manifests is applied whole or not at all: while one has a problem, the last good set stays in force.
"""
