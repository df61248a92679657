"""The supervisor behind `./run.sh`: embedded Redis, gateway and workers as one thing that starts and stops.

preflight   what must hold before anything starts      embedded_redis, external_redis   the server, ours or theirs
part        one process on a leash                     supervisor   starts parts, restarts the dead, stops in order
output      their lines on one stream                  plan, running   which parts there are; the stack as a context
health      the gateway's answer, as a banner          __main__   the command line
"""
