"""The worker: a supervisor that talks to the server, and executors, its children, that run user code.

    Supervisor   claims, leases, reports, stops              supervisor.py
      Membership   one registration with the server          membership.py
      Fleet        the executors: chosen, watched, replaced  fleet.py
        Child        one executor seen from outside          child.py
      Variables    the environment's, for executors          variables.py
    ── socket pair, batches of JSON messages ──              pipe.py
    executor     the child: imports tasks, runs attempts     executor.py
      attempt      hooks, the function, the retry decision   attempt.py
      session      logs, metadata and tags of one attempt    session.py
      durable      its journal and its waits                 durable.py
        recorder     entries to the store                    recorder.py
        order        results to the code, one after another  order.py
        parking      waits, and when to suspend              parking.py
        scope        the branches of the code                scope.py

No user code is ever imported by the supervisor, so nothing that user code does can stop a heartbeat.
"""
