"""Everything that happens on one host that is reached by ssh.

`interface.py` has the types that callers see and `Host`, the contract; `host.py` implements it
(`SshHost`). Below them: `config` (what ssh is told), `complaints` (what its words mean),
`connection` (one host's shared connection), `check`, `bundle`, `install`, `supervision`,
`tunnel`. `onhost/` are programs that run over there, on the standard library of a Python from
3.7 on: they are sent as text and import nothing of ours.

A reconciler's way with a host:

    host = SshHost(config, server_id, directory)        # opens nothing yet
    facts = await host.check(urls, authority)           # one round trip
    bundle = await asyncio.to_thread(bundles.make)      # `bundle.Bundles(home)`; cached by digest
    if facts.installed != bundle.digest:
        await host.install(facts, bundle)
    await host.start(facts, bundle, enrolment)          # also the upgrade; changes nothing where
                                                        # exactly this agent runs already
    await host.tunnel(facts, server, told)              # until cancelled, where facts.reaches is
                                                        # empty
    await host.stop(facts) / await host.remove(facts)   # jobs go on / nothing is left
    await host.close()

Whatever goes wrong is a `HostProblem`: one line of cause, one of fix, and whether trying again
may help. No call prompts, and each ends within its deadline. All of them may be repeated and
may be cancelled at any moment.
"""
