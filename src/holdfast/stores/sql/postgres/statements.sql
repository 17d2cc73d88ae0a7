-- Statements that take a batch as one JSON parameter, or lock: PostgreSQL.
-- A batch is a JSON list of lists; each statement says what stands at which place. Batches are sorted by id before they
-- are joined, so that rows are locked in one order everywhere: the newest first, and so children before their parents.

-- name: lock_environment
-- Serialises claims of one environment. Leaves foreign keys alone, which new runs check.
select id, concurrency_limit, paused, current_version from environments where id = :id for no key update

-- name: lock_keys
-- Serialises triggers with the same idempotency key. :keys are [environment, task, key]. A thousand locks stand for all
-- keys: the server has room for a limited number of them.
with k as materialized (
    select distinct (hashtextextended(value::text, 0) & 1023)::int as place
      from jsonb_array_elements(:keys::jsonb) order by place)
select pg_advisory_xact_lock(7462001, place) from k

-- name: lock_versions
-- Serialises registrations of one environment.
select pg_advisory_xact_lock(7462002, hashtext(:id::text))

-- name: lock_variables
-- Serialises changes of an environment's variables.
select pg_advisory_xact_lock(7462006, hashtext(:id::text))

-- name: lock_worker
-- Keeps a worker from claiming until the commit, so that nothing is missed when what it holds is given back.
select id from workers where id = :id for update

-- name: add_runs
-- Adds new runs: each parameter is a column of them.
insert into runs (
    id, environment_id, status, task, version_lock, queue, concurrency_key, priority, score,
    max_attempts, max_duration, machine, is_test, ttl_ms, due_at, delayed_until, created_at,
    idempotency_key, parent_id, root_id, depth, batch_id, replay_of, tags, metadata, payload,
    payload_type, idempotency_key_shown, external_deployment, ttl_shown,
    lease, attempt, starts, losses, alone, updated_at)
select n.*, 1, 0, 0, 0, 0, n.created_at
  from unnest(
    :id::text[], :environment_id::text[], :status::text[], :task::text[], :version_lock::text[], :queue::text[],
    :concurrency_key::text[], :priority::bigint[], :score::bigint[], :max_attempts::bigint[], :max_duration::bigint[],
    :machine::text[], :is_test::bigint[], :ttl_ms::bigint[], :due_at::bigint[], :delayed_until::bigint[],
    :created_at::bigint[], :idempotency_key::text[], :parent_id::text[], :root_id::text[], :depth::bigint[],
    :batch_id::text[], :replay_of::text[], :tags::text[], :metadata::text[], :payload::text[],
    :payload_type::text[], :idempotency_key_shown::text[], :external_deployment::text[], :ttl_shown::text[]
  ) as n (
    id, environment_id, status, task, version_lock, queue, concurrency_key, priority, score,
    max_attempts, max_duration, machine, is_test, ttl_ms, due_at, delayed_until, created_at,
    idempotency_key, parent_id, root_id, depth, batch_id, replay_of, tags, metadata, payload,
    payload_type, idempotency_key_shown, external_deployment, ttl_shown)

-- name: runs_for_update
-- Runs by id, locked until the commit. :ids are run ids.
select runs.* from runs
 where id in (select jsonb_array_elements_text(:ids::jsonb)) order by id desc for no key update

-- name: runs_by_id
-- Runs by id. :ids are run ids.
select runs.* from runs where id in (select jsonb_array_elements_text(:ids::jsonb)) order by id

-- name: traced_runs
-- What a trace tells of runs. :ids are run ids.
select id, parent_id, root_id, task, status, version, queue, machine, attempt, starts, suspended, created_at,
       updated_at, started_at, finished_at, attempt_started_at, entries
  from runs where id in (select jsonb_array_elements_text(:ids::jsonb)) order by id

-- name: traced_children
-- The same of the children of runs: at most :limit, in order. :parents are run ids.
select child.*
  from jsonb_array_elements_text(:parents::jsonb) as p (id) cross join lateral (
    select id, parent_id, root_id, task, status, version, queue, machine, attempt, starts, suspended, created_at,
           updated_at, started_at, finished_at, attempt_started_at, entries
      from runs where runs.parent_id = p.id order by runs.id limit :limit) as child
 order by child.id limit :limit

-- name: run_states
-- Whether runs are final, for those who wait. :ids are run ids.
select id, environment_id, status from runs where id in (select jsonb_array_elements_text(:ids::jsonb))

-- name: active_family
-- The runs :ids, their children and theirs, and so on, that have not ended, locked. Those who did may have some.
with recursive tree (id) as (
    select jsonb_array_elements_text(:ids::jsonb) collate "C"
     union
    select runs.id from tree join runs on runs.parent_id = tree.id
)
select runs.* from tree join runs on runs.id = tree.id
 where runs.finished_at is null and runs.status <> 'CANCELLED'
 order by runs.id desc for no key update of runs

-- name: save_runs
-- Writes back runs that were decided on. :changes are [id, lease it was read with, status, lease, score, attempt,
-- losses, alone, worker_id, due_at, delayed_until, updated_at, finished_at, attempt_started_at, error, output, queue,
-- concurrency_key, entries, journal_bytes, suspended, active_ms, operations, output_type, version, version_lock].
-- A run whose lease has moved on stays as it is and is missing from the result.
with c as materialized (select value as v from jsonb_array_elements(:changes::jsonb) order by value ->> 0 desc)
update runs
   set status = c.v ->> 2, lease = (c.v ->> 3)::bigint, score = (c.v ->> 4)::bigint, attempt = (c.v ->> 5)::bigint,
       losses = (c.v ->> 6)::bigint, alone = (c.v ->> 7)::boolean::int, worker_id = c.v ->> 8,
       due_at = (c.v ->> 9)::bigint, delayed_until = (c.v ->> 10)::bigint, updated_at = (c.v ->> 11)::bigint,
       finished_at = (c.v ->> 12)::bigint, attempt_started_at = (c.v ->> 13)::bigint, error = c.v ->> 14,
       output = c.v ->> 15, queue = c.v ->> 16, concurrency_key = c.v ->> 17, entries = (c.v ->> 18)::bigint,
       journal_bytes = (c.v ->> 19)::bigint, suspended = (c.v ->> 20)::boolean::int,
       active_ms = (c.v ->> 21)::bigint, operations = (c.v ->> 22)::bigint,
       output_type = c.v ->> 23, version = c.v ->> 24, version_lock = c.v ->> 25
  from c
 where runs.id = c.v ->> 0 and runs.lease = (c.v ->> 1)::bigint
returning runs.id

-- name: held
-- How many runs of each queue and key hold a slot of an environment now.
select queue, concurrency_key, count(*) as held
  from runs
 where worker_id is not null and environment_id = :environment_id
   and status in ('EXECUTING', 'REATTEMPTING')
 group by queue, concurrency_key

-- name: queues
-- The queues of an environment that hold something back, with the limits in force.
select name, coalesce(override_limit, concurrency_limit) as concurrency_limit, per_key_limit, paused from queues
 where environment_id = :environment_id
   and (paused = 1 or concurrency_limit is not null or per_key_limit is not null or override_limit is not null)

-- name: queued
-- How many runs of queues wait for a slot. :names are those of the queues. Seeks for each task along runs_ready, and
-- walks what is counted: never what waits in other queues, or has ended. "Offset 0" keeps it in this order.
select q.name as queue, sum(counted.queued)::bigint as queued
  from (select value as name, tasks.id as task
          from jsonb_array_elements_text(:names::jsonb) cross join tasks
         where tasks.environment_id = :environment_id offset 0) as q
 cross join lateral (
    select count(*) as queued from runs
     where runs.status = 'QUEUED' and runs.environment_id = :environment_id
       and runs.task = q.task and runs.queue = q.name) as counted
 group by q.name having sum(counted.queued) > 0

-- name: lanes
-- The lanes of an environment that have a queued run: at most :limit, in the order of their names after
-- (:task, :queue, :concurrency_key). Jumps from lane to lane along runs_ready, one seek for each.
with recursive lane (task, queue, concurrency_key, number) as (
    select :task::text collate "C", :queue::text collate "C", :concurrency_key::text collate "C", 0
    union all
    select next.task, next.queue, next.concurrency_key, lane.number + 1
      from lane cross join lateral (
        select runs.task, runs.queue, runs.concurrency_key from runs
         where status = 'QUEUED' and environment_id = :environment_id
           and (runs.task, runs.queue, runs.concurrency_key) > (lane.task, lane.queue, lane.concurrency_key)
         order by runs.task, runs.queue, runs.concurrency_key limit 1) as next
     where lane.number < :limit
)
select task, queue, concurrency_key from lane where number > 0

-- name: ready_runs
-- The first :limit runs of each lane that a worker of :version may take. :lanes are [task, queue, concurrency key, score
-- to begin at]. Runs that belong to another version are passed over: those that are locked to it and, where :stay is 1,
-- those that it has begun. But a child, and what was begun, goes to anybody when no worker has its task in that version.
select ready.id, ready.task, ready.score, ready.queue, ready.concurrency_key
  from jsonb_array_elements(:lanes::jsonb) as lane cross join lateral (
    select runs.id, runs.task, runs.score, runs.queue, runs.concurrency_key from runs
     where runs.status = 'QUEUED' and runs.environment_id = :environment_id
       and runs.task = lane.value ->> 0 and runs.queue = lane.value ->> 1
       and runs.concurrency_key = lane.value ->> 2 and runs.score >= (lane.value ->> 3)::bigint
       and ((runs.version_lock is null and (:stay = 0 or runs.version is null or runs.version = :version))
            or runs.version_lock = :version
            or ((runs.version_lock is null or runs.parent_id is not null) and not exists (
                select 1 from workers
                 where workers.environment_id = runs.environment_id
                   and workers.version = coalesce(runs.version_lock, runs.version)
                   and jsonb_exists(workers.tasks::jsonb, runs.task))))
     order by runs.score, runs.id limit :limit) as ready

-- name: pinned_runs
-- The same for a worker of another version than the current one: only runs that belong to its own.
select ready.id, ready.task, ready.score, ready.queue, ready.concurrency_key
  from jsonb_array_elements(:lanes::jsonb) as lane cross join lateral (
    select runs.id, runs.task, runs.score, runs.queue, runs.concurrency_key from runs
     where runs.status = 'QUEUED' and (runs.version_lock is not null or runs.version is not null)
       and runs.environment_id = :environment_id and coalesce(runs.version_lock, runs.version) = :version
       and runs.task = lane.value ->> 0 and runs.queue = lane.value ->> 1
       and runs.concurrency_key = lane.value ->> 2 and runs.score >= (lane.value ->> 3)::bigint
     order by runs.score, runs.id limit :limit) as ready

-- name: start_runs
-- Begins an attempt of each run, or goes on with that of a suspended one. :starts are run ids. :policies are
-- [task, max_attempts, max_duration] for runs that were triggered before their task was known, :max_attempts is for
-- tasks without one. Returns the runs that were still queued; none when the worker is gone by now. A claim that waited
-- for a lock may have begun before its runs were created: none starts before that.
with c as materialized (select value as id from jsonb_array_elements_text(:starts::jsonb) order by value desc),
     p as materialized (select value ->> 0 as task, (value ->> 1)::bigint as attempts, (value ->> 2)::bigint as duration
                          from jsonb_array_elements(:policies::jsonb)),
     w as materialized (select id from workers where id = :worker_id for key share)
update runs
   set status = 'EXECUTING', lease = runs.lease + 1, worker_id = w.id, version = :version,
       attempt = runs.attempt + 1 - runs.suspended, starts = runs.starts + 1 - runs.suspended,
       resumes = (runs.resumes + 1) * runs.suspended, suspended = 0, due_at = null,
       max_attempts = coalesce(runs.max_attempts, (select p.attempts from p where p.task = runs.task), :max_attempts),
       max_duration = coalesce(runs.max_duration, (select p.duration from p where p.task = runs.task)),
       updated_at = greatest(:now, runs.created_at),
       attempt_started_at = case when runs.suspended = 1 then runs.attempt_started_at
                                 else greatest(:now, runs.created_at) end,
       started_at = coalesce(runs.started_at, greatest(:now, runs.created_at))
  from c cross join w
 where runs.id = c.id and runs.status is not distinct from 'QUEUED'
returning runs.*

-- name: finish_runs
-- Ends runs that succeeded. :outcomes are [id, lease, output, its type]. Returns the runs whose lease was still held. "Is not
-- distinct" keeps the planner from walking all that the worker holds once for each outcome, which took ten times as long.
with c as materialized (select value as v from jsonb_array_elements(:outcomes::jsonb) order by value ->> 0 desc)
update runs
   set status = 'COMPLETED_SUCCESSFULLY', lease = runs.lease + 1, worker_id = null, output = c.v ->> 2,
       output_type = c.v ->> 3, updated_at = :now, finished_at = :now
  from c
 where runs.id = c.v ->> 0 and runs.lease = (c.v ->> 1)::bigint and runs.status = 'EXECUTING'
   and runs.worker_id is not distinct from :worker_id
returning runs.id

-- name: next_attempts
-- Begins the next attempt of runs whose worker slept the delay. :starts are [id, lease].
with c as materialized (select value as v from jsonb_array_elements(:starts::jsonb) order by value ->> 0 desc)
update runs
   set status = 'EXECUTING', lease = runs.lease + 1, attempt = runs.attempt + 1, starts = runs.starts + 1,
       resumes = 0, due_at = null, updated_at = :now, attempt_started_at = :now
  from c
 where runs.id = c.v ->> 0 and runs.lease = (c.v ->> 1)::bigint and runs.status = 'REATTEMPTING'
   and runs.worker_id is not distinct from :worker_id
returning runs.id, runs.lease, runs.attempt

-- name: save_metadata
-- Writes metadata and tags of runs. :changes are [id, metadata, tags, operations of the code that are written].
with c as materialized (select value as v from jsonb_array_elements(:changes::jsonb) order by value ->> 0 desc)
update runs set metadata = c.v ->> 1, tags = c.v ->> 2, operations = (c.v ->> 3)::bigint, updated_at = :now
  from c where runs.id = c.v ->> 0

-- name: append_entries
-- Counts new journal entries of runs, which reset the losses in a row. :changes are [id, lease, worker, number of the
-- first one, how many, bytes of their values]. Returns the runs that were held under this lease, had entries up to the
-- first one and have room; what is to be told of the others has to be looked up.
with c as materialized (select value as v from jsonb_array_elements(:changes::jsonb) order by value ->> 0 desc)
update runs
   set entries = runs.entries + (c.v ->> 4)::bigint, journal_bytes = runs.journal_bytes + (c.v ->> 5)::bigint,
       losses = 0, updated_at = :now
  from c
 where runs.id = c.v ->> 0 and runs.lease = (c.v ->> 1)::bigint and runs.status = 'EXECUTING'
   and runs.worker_id is not distinct from c.v ->> 2 and runs.entries = (c.v ->> 3)::bigint
   and runs.entries + (c.v ->> 4)::bigint <= :max_entries
   and runs.journal_bytes + (c.v ->> 5)::bigint <= :max_bytes
returning runs.id

-- name: add_entries
-- Adds journal entries: each parameter is a column of them.
insert into journal (run_id, seq, scope, kind, name, args, ok, value, ref)
select * from unnest(
    :run_id::text[], :seq::bigint[], :scope::text[], :kind::text[], :name::text[], :args::text[], :ok::bigint[],
    :value::text[], :ref::text[])

-- name: entries_of
-- The journals of runs, in order. :ids are run ids.
select run_id, seq, scope, kind, name, args, ok, value, ref
  from journal where run_id in (select jsonb_array_elements_text(:ids::jsonb)) order by run_id, seq

-- name: outcomes
-- How runs ended; outputs of more than :characters are left out. :ids are run ids.
select id, task, status, error,
       output is not null and (length(output) > :characters or output_type is not null) as is_large,
       case when length(output) <= :characters then output end as output
  from runs where environment_id is not distinct from :environment_id
   and id in (select jsonb_array_elements_text(:ids::jsonb))

-- name: wait_on_runs
-- Whether runs have ended, for those who begin to wait for them. What is answered can not end before the commit; what
-- is being written now is not answered, so that nobody who holds these locks ever waits. :ids are run ids.
select id, environment_id, status, parent_id as owner from runs
 where id in (select jsonb_array_elements_text(:ids::jsonb)) for share skip locked

-- name: wait_on_waitpoints
-- The same for tokens. :ids are theirs.
select id, environment_id, status, run_id as owner from waitpoints
 where id in (select jsonb_array_elements_text(:ids::jsonb)) for share skip locked

-- name: waitpoints_by_id
-- Tokens by id. :ids are theirs.
select * from waitpoints where id in (select jsonb_array_elements_text(:ids::jsonb)) order by id

-- name: waitpoints_for_update
-- Tokens by id, locked until the commit. :ids are theirs.
select * from waitpoints
 where id in (select jsonb_array_elements_text(:ids::jsonb)) order by id for no key update

-- name: time_out_waitpoints
-- Ends tokens whose timeout has passed, the most overdue first, with an error. Returns their ids.
update waitpoints
   set status = 'TIMED_OUT', output = :output, output_is_error = 1, completed_at = :now
 where id in (
    select id from waitpoints where status = 'WAITING' and timeout_at <= :now
     order by timeout_at limit :limit for no key update skip locked)
returning id

-- name: old_waitpoints
-- Retention: at most :limit tokens that were complete before :before, locked, but none of a run that goes on, and none that
-- is kept for one. `offset 0` as in old_runs.
select id from waitpoints
 where environment_id = :environment_id and id < :id_before and completed_at < :before
   and not exists (select 1 from runs where runs.id = waitpoints.run_id and runs.finished_at is null)
   and not exists (select 1 from kept_for join runs as keeper on keeper.id = kept_for.run_id
                    where kept_for.target = waitpoints.id and keeper.finished_at is null offset 0)
 order by id limit :limit for update skip locked

-- name: delete_waitpoints
-- Deletes tokens, but none that a run began to use before they were locked. :ids are theirs.
delete from waitpoints
 where id in (select jsonb_array_elements_text(:ids::jsonb))
   and not exists (select 1 from kept_for join runs as keeper on keeper.id = kept_for.run_id
                    where kept_for.target = waitpoints.id and keeper.finished_at is null offset 0)

-- name: save_variables
-- Sets variables, new or not. :variables are [environment_id, name, sealed, bytes, is_secret].
insert into variables (environment_id, name, sealed, bytes, is_secret, created_at, updated_at)
select value ->> 0, value ->> 1, value ->> 2, (value ->> 3)::int, (value ->> 4)::int, :now, :now
  from jsonb_array_elements(:variables::jsonb)
    on conflict (environment_id, name)
    do update set sealed = excluded.sealed, bytes = excluded.bytes, is_secret = excluded.is_secret,
                  updated_at = excluded.updated_at

-- name: keep_runs
-- Keeps runs for others than their parents. :uses are [run, the one that uses it]. One that is being deleted is gone.
insert into kept_for (target, run_id)
select used.id, c.value ->> 1
  from jsonb_array_elements(:uses::jsonb) as c
 cross join lateral (
    select id from runs
     where id = c.value ->> 0 and parent_id is distinct from c.value ->> 1
       and environment_id = (select environment_id from runs where id = c.value ->> 1)
       for key share skip locked) as used
    on conflict do nothing

-- name: keep_waitpoints
-- Keeps tokens for runs that did not make them. :uses are [token, run].
insert into kept_for (target, run_id)
select used.id, c.value ->> 1
  from jsonb_array_elements(:uses::jsonb) as c
 cross join lateral (
    select id from waitpoints
     where id = c.value ->> 0 and run_id is distinct from c.value ->> 1
       and environment_id = (select environment_id from runs where id = c.value ->> 1)
       for key share skip locked) as used
    on conflict do nothing

-- name: add_waits
-- Keeps what suspended runs wait for. :waits are [run_id, part, number, target, due_at, wake].
insert into waits (run_id, part, number, target, due_at, wake)
select value ->> 0, (value ->> 1)::bigint, (value ->> 2)::bigint, value ->> 3, (value ->> 4)::bigint, value ->> 5
  from jsonb_array_elements(:waits::jsonb)

-- name: waits_on
-- Who waits for runs or tokens. :targets are their ids.
select distinct run_id from waits where target in (select jsonb_array_elements_text(:targets::jsonb))

-- name: suspended_runs
-- Those of the runs that are suspended, locked; the ones that somebody else decides on now are passed over.
select runs.* from runs
 where id in (select jsonb_array_elements_text(:ids::jsonb)) and status is not distinct from 'WAITING_TO_RESUME'
 order by id desc for no key update skip locked

-- name: end_waits
-- Ends waits of :runs, which are locked, for :targets. Returns [run_id, part, target, wake] of each.
delete from waits
 where target in (select jsonb_array_elements_text(:targets::jsonb))
   and run_id in (select jsonb_array_elements_text(:runs::jsonb))
returning run_id, part, target, wake

-- name: end_due_waits
-- Ends waits of :runs, which are locked, for a time that has come. Returns [run_id, part, target, wake] of each. By
-- waits_due it would walk all that is due, once for each batch of it; "coalesce" keeps it from that.
delete from waits
 where run_id in (select jsonb_array_elements_text(:runs::jsonb)) and coalesce(due_at, :now + 1) <= :now and target is null
returning run_id, part, target, wake

-- name: look_later
-- Looks at targets of :runs again at :due_at, or with null never: they tell themselves. :targets are ids.
update waits set due_at = :due_at
 where target in (select jsonb_array_elements_text(:targets::jsonb))
   and run_id in (select jsonb_array_elements_text(:runs::jsonb))

-- name: parts_waiting
-- Which of these have something left to wait for. :parts are [run_id, part].
select value ->> 0 as run_id, (value ->> 1)::bigint as part from jsonb_array_elements(:parts::jsonb) as p
 where exists (select 1 from waits where run_id = p.value ->> 0 and part = (p.value ->> 1)::bigint)

-- name: delete_waits
-- Forgets what runs waited for, which are locked. :runs are run ids.
delete from waits where run_id in (select jsonb_array_elements_text(:runs::jsonb))

-- name: add_attempts
-- Keeps attempts that are followed by another one. :attempts are [id, run_id, number, status, started_at,
-- completed_at, error].
insert into attempts (id, run_id, number, status, started_at, completed_at, error)
select value ->> 0, value ->> 1, (value ->> 2)::bigint, value ->> 3, (value ->> 4)::bigint, (value ->> 5)::bigint,
       value ->> 6
  from jsonb_array_elements(:attempts::jsonb)
    on conflict (id) do nothing

-- name: add_tags
-- Tags runs. :tags are [environment_id, tag, run_id].
insert into run_tags (environment_id, tag, run_id)
select value ->> 0, value ->> 1, value ->> 2 from jsonb_array_elements(:tags::jsonb)
    on conflict (environment_id, tag, run_id) do nothing

-- name: keys
-- Who holds idempotency keys. :keys are [environment_id, task, key].
select k.environment_id, k.task, k.key, k.run_id, k.expires_at, runs.status
  from jsonb_array_elements(:keys::jsonb) as c
 cross join lateral (
    select * from idempotency_keys as own
     where own.environment_id = c.value ->> 0 and own.task = c.value ->> 1 and own.key = c.value ->> 2 limit 1) as k
  join runs on runs.id = k.run_id

-- name: save_keys
-- Gives idempotency keys to runs. :keys are [environment_id, task, key, run_id, expires_at].
insert into idempotency_keys (environment_id, task, key, run_id, expires_at)
select value ->> 0, value ->> 1, value ->> 2, value ->> 3, (value ->> 4)::bigint
  from jsonb_array_elements(:keys::jsonb)
    on conflict (environment_id, task, key)
    do update set run_id = excluded.run_id, expires_at = excluded.expires_at

-- name: task_specs
-- What was registered about tasks, and whether the current deployment lacks them. :ids are task ids.
select id, spec, retired from tasks
 where environment_id = :environment_id and id in (select jsonb_array_elements_text(:ids::jsonb))

-- name: known_queues
-- Those of the queues that there are. :names are theirs.
select name from queues
 where environment_id = :environment_id and name in (select jsonb_array_elements_text(:names::jsonb))

-- name: external_versions
-- The versions that other systems call so. :ids are external ids.
select external_id, version from external_deployments
 where environment_id = :environment_id and external_id in (select jsonb_array_elements_text(:ids::jsonb))

-- name: retire_tasks
-- Retires the tasks that the current deployment does not have. :ids are those it has.
update tasks set retired = 1
 where environment_id = :environment_id and id not in (select jsonb_array_elements_text(:ids::jsonb))

-- name: due_runs
-- Runs whose time has come, the most overdue first. Those that somebody else decides on now are passed over.
select runs.* from runs where due_at <= :now order by due_at limit :limit for no key update skip locked

-- name: parked_runs
-- Runs that waited for a version with their task and queue, or for a deployment, which has come; oldest first. Those
-- whose journal did not fit the version that they ran on wait for another one, if they may run on another one.
select runs.* from runs
 where status = 'WAITING_FOR_DEPLOY'
   and exists (select 1 from tasks where tasks.environment_id = runs.environment_id and tasks.id = runs.task
                  and tasks.version is distinct from runs.version
                  and (tasks.retired = 0 or runs.version_lock is not null or runs.external_deployment is not null))
   and (runs.queue = 'task/' || runs.task
        or exists (select 1 from queues
                    where queues.environment_id = runs.environment_id and queues.name = runs.queue))
   and (runs.external_deployment is null or runs.version_lock is not null
        or exists (select 1 from external_deployments as external
                    where external.environment_id = runs.environment_id
                      and external.external_id = runs.external_deployment))
   and (runs.version_lock is null or runs.version is distinct from runs.version_lock
        or (runs.parent_id is not null and not exists (
            select 1 from workers
             where workers.environment_id = runs.environment_id and workers.version = runs.version_lock
               and jsonb_exists(workers.tasks::jsonb, runs.task))))
 order by environment_id, task, id limit :limit for no key update of runs skip locked

-- name: lost_workers
-- Workers whose lease is over, the most overdue first.
select id from workers where lease_until < :before order by lease_until limit :limit for update skip locked

-- name: runs_of_worker
-- What a worker holds, locked: at most :limit runs.
select runs.* from runs where worker_id = :worker_id order by id desc limit :limit for no key update

-- name: cancelled_of_workers
-- Cancelled runs whose process is still to be stopped. :ids are worker ids.
select worker_id, id, lease from runs
 where worker_id in (select jsonb_array_elements_text(:ids::jsonb)) and status = 'CANCELLED'

-- name: add_logs
-- Keeps log records. :logs are [run_id, attempt, at, level, logger, message].
insert into logs (run_id, attempt, at, level, logger, message)
select value ->> 0, (value ->> 1)::bigint, (value ->> 2)::bigint, value ->> 3, value ->> 4, value ->> 5
  from jsonb_array_elements(:logs::jsonb)

-- name: old_runs
-- Retention: at most :limit runs that finished before :before, locked, but none that a run may ask for that goes on:
-- its children, and what is kept for it.
-- `offset 0` makes the planner look up each: for all that goes on joined before, old numbers have cost half a minute.
select id from runs
 where environment_id = :environment_id and id < :id_before and finished_at < :before
   and not exists (select 1 from runs as parent
                    where parent.id = runs.parent_id and parent.finished_at is null offset 0)
   and not exists (select 1 from kept_for join runs as keeper on keeper.id = kept_for.run_id
                    where kept_for.target = runs.id and keeper.finished_at is null offset 0)
 order by id limit :limit for update skip locked

-- name: delete_journals
-- Deletes at most :entries journal entries of runs. :ids are theirs. Returns the run of each.
delete from journal where (run_id, seq) in (
    select run_id, seq from journal where run_id in (select jsonb_array_elements_text(:ids::jsonb)) limit :entries)
returning run_id

-- name: delete_finished
-- Deletes those of the runs that have no journal any more, and that nobody began to use before they were locked. :ids
-- are theirs. Returns their ids.
delete from runs
 where id in (select jsonb_array_elements_text(:ids::jsonb))
   and not exists (select 1 from journal where journal.run_id = runs.id)
   and not exists (select 1 from kept_for join runs as keeper on keeper.id = kept_for.run_id
                    where kept_for.target = runs.id and keeper.finished_at is null offset 0)
returning id

-- name: delete_requests
-- Forgets at most :limit request keys from before :before. Returns them.
delete from requests where (environment_id, key) in (
    select environment_id, key from requests where created_at < :before limit :limit for update skip locked)
returning key

-- name: next_bulk_action
-- The bulk action that nobody has gone on with for longest, and nobody does now; locked.
select * from bulk_actions where status = 'PENDING' order by updated_at, id limit 1 for update skip locked

-- name: add_bulk_members
-- Members of a bulk action that were named. :ids are run ids.
insert into bulk_members (bulk_id, run_id) select :bulk_id, jsonb_array_elements_text(:ids::jsonb)

-- name: batches_for_update
-- Batches by id, locked until the commit. :ids are theirs.
select * from batches
 where id in (select jsonb_array_elements_text(:ids::jsonb)) order by id for no key update

-- name: items_at
-- Items of batches that have arrived. :places are [batch_id, number].
select i.batch_id, i.number, i.run_id, i.is_cached, i.error
  from jsonb_array_elements(:places::jsonb) as c
 cross join lateral (
    select * from batch_items as own
     where own.batch_id = c.value ->> 0 and own.number = (c.value ->> 1)::bigint limit 1) as i

-- name: add_batch_items
-- Keeps what became of items. Each parameter is an array, with a place for each item.
insert into batch_items (batch_id, number, task, run_id, is_cached, error)
select * from unnest(:batch_id::text[], :number::bigint[], :task::text[], :run_id::text[], :is_cached::bigint[],
                     :error::text[])

-- name: count_items
-- Counts items of batches, which are locked, and seals those that have all. :counts are [batch_id, how many more].
-- Returns the batches.
with c as materialized (
    select value ->> 0 as id, (value ->> 1)::bigint as more from jsonb_array_elements(:counts::jsonb))
update batches
   set arrived = batches.arrived + c.more, updated_at = :now,
       sealed_at = case when batches.arrived + c.more = batches.run_count then :now::bigint end,
       due_at = case when batches.arrived + c.more < batches.run_count then batches.due_at end
  from c where batches.id = c.id
returning batches.*

-- name: abort_batches
-- Ends batches whose items did not arrive in time, the most overdue first, and takes their keys. Returns their ids.
-- Those that items arrive at just now are passed over.
update batches set aborted_at = :now, updated_at = :now, due_at = null, key_digest = null
 where id in (
    select id from batches where due_at <= :now order by due_at limit :limit for no key update skip locked)
returning id

-- name: delete_batches
-- Retention: deletes at most :limit batches from before :before that wait for no item and whose runs are all gone.
-- Returns their ids.
with old as materialized (
    select id from batches
     where environment_id = :environment_id and created_at < :before and due_at is null
       and not exists (select 1 from batch_items as i join runs on runs.id = i.run_id where i.batch_id = batches.id)
     order by created_at limit :limit for update skip locked),
gone as (delete from batch_items where batch_id in (select id from old))
delete from batches where id in (select id from old)
returning id

-- name: delete_used_tokens
-- Forgets at most :limit one-time tokens that have expired before :before. Returns their digests.
delete from used_tokens where digest in (
    select digest from used_tokens where expires_at < :before order by expires_at limit :limit for update skip locked)
returning digest

-- name: add_packets
-- Makes room for objects. :keys are theirs; nobody's use of them is looked for before :due_at. Returns those that are
-- not being deleted.
insert into packets (key, created_at, due_at)
select key, :now::bigint, :due_at::bigint from jsonb_array_elements_text(:keys::jsonb) as k (key) order by key
    on conflict (key) do update set due_at = excluded.due_at where packets.deleting = 0
returning key

-- name: packets_in_use
-- Of :keys those that a run uses.
select key from packets where key in (select jsonb_array_elements_text(:keys::jsonb))
   and exists (select 1 from packet_runs where packet_runs.key = packets.key)

-- name: packets_to_use
-- Of :keys those that runs may begin to use, locked against being deleted.
select key from packets where key in (select jsonb_array_elements_text(:keys::jsonb)) and deleting = 0
 order by key for share

-- name: use_packets
-- Keeps packets for runs. :uses are [key, run].
insert into packet_runs (key, run_id)
select value ->> 0, value ->> 1 from jsonb_array_elements(:uses::jsonb)
    on conflict do nothing

-- name: release_packets
-- Upkeep is to look at the packets of runs that are no more, at :now. :runs are their ids.
update packets set due_at = :now where key in (
    select packets.key from packets join packet_runs on packet_runs.key = packets.key
     where packet_runs.run_id in (select jsonb_array_elements_text(:runs::jsonb))
     order by packets.key for no key update of packets)

-- name: forget_packet_runs
-- :runs are ids of runs that are no more.
delete from packet_runs where run_id in (select jsonb_array_elements_text(:runs::jsonb))

-- name: due_packets
-- At most :limit packets whose time to be looked at has come, locked.
select key from packets where due_at <= :now order by due_at limit :limit for update skip locked

-- name: condemn_packets
-- Of :keys those that no run uses are to be deleted, which is tried again at :due_at; returns them.
update packets set deleting = 1, due_at = :due_at
 where key in (select jsonb_array_elements_text(:keys::jsonb))
   and not exists (select 1 from packet_runs where packet_runs.key = packets.key)
returning key

-- name: keep_packets
-- Of :keys those that a run uses are not to be looked at until it is no more.
update packets set due_at = null
 where key in (select jsonb_array_elements_text(:keys::jsonb))
   and exists (select 1 from packet_runs where packet_runs.key = packets.key)

-- name: delete_packets
-- The objects of :keys are gone.
delete from packets where key in (select jsonb_array_elements_text(:keys::jsonb)) and deleting = 1

-- name: lock_schedules
-- Serialises changes of schedules, but not their ticks.
select pg_advisory_xact_lock(7462007, 0)

-- name: schedule_for_update
-- A schedule of an environment, locked until the commit.
select * from schedules where id = :id and environment_id = :environment_id for no key update

-- name: schedule_of_key
-- The schedule of a project that has a deduplication key, locked until the commit.
select * from schedules where project = :project and deduplication_key = :key for no key update

-- name: due_schedules
-- Schedules with a tick whose time has come, the most overdue first, locked, and what matters
-- of their environments. Those that somebody else decides on now are passed over.
select schedules.*, environments.type as environment_type, environments.archived_at
  from schedules join environments on environments.id = schedules.environment_id
 where schedules.due_at <= :now order by schedules.due_at limit :limit for no key update of schedules skip locked

-- name: known_ticks
-- Those of the ticks that were decided on. :ticks are [schedule_id, tick_at].
select ticks.schedule_id, ticks.tick_at
  from jsonb_array_elements(:ticks::jsonb) as c join ticks
    on ticks.schedule_id = c.value ->> 0 and ticks.tick_at = (c.value ->> 1)::bigint

-- name: add_ticks
-- Keeps what became of ticks. :ticks are [schedule_id, tick_at, run_id, refusal].
insert into ticks (schedule_id, tick_at, run_id, refusal, at)
select value ->> 0, (value ->> 1)::bigint, value ->> 2, value ->> 3, :now::bigint
  from jsonb_array_elements(:ticks::jsonb)

-- name: move_schedules
-- Moves schedules, which are locked, to their next ticks. :moves are [id, tick_at, due_at, last_at, last_run_id].
update schedules
   set tick_at = (c.value ->> 1)::bigint, due_at = (c.value ->> 2)::bigint, last_at = (c.value ->> 3)::bigint,
       last_run_id = c.value ->> 4
  from jsonb_array_elements(:moves::jsonb) as c
 where schedules.id = c.value ->> 0

-- name: forget_ticks
-- Forgets the ticks of runs that are no more. :runs are their ids.
delete from ticks where run_id in (select jsonb_array_elements_text(:runs::jsonb))

-- name: forget_refusals
-- Forgets at most :limit ticks that made no run, from before :before.
delete from ticks where (schedule_id, tick_at) in (
    select schedule_id, tick_at from ticks where run_id is null and at < :before
     order by at limit :limit for update skip locked)
