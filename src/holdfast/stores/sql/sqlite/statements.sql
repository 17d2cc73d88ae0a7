-- Statements that take a batch as one JSON parameter, or lock: SQLite.
-- A batch is a JSON list of lists; each statement says what stands at which place.

-- name: lock_environment
-- Serialises claims of one environment: here the only writer does.
select id, concurrency_limit, paused, current_version from environments where id = :id

-- name: lock_keys
-- Serialises triggers with the same idempotency key: here the only writer does. :keys are [environment, task, key].
select 1 as locked where :keys is null

-- name: lock_versions
-- Serialises registrations of one environment: here the only writer does.
select 1 as locked where :id is null

-- name: lock_variables
-- Serialises changes of an environment's variables: here the only writer does.
select 1 as locked where :id is null

-- name: lock_worker
-- Keeps a worker from claiming until the commit: here only one writes at a time.
select id from workers where id = :id

-- name: add_runs
-- Adds new runs: executed once for each. Binding a row is 2.5 times as fast as taking it out of a JSON batch.
insert into runs (
    id, environment_id, status, task, version_lock, queue, concurrency_key, priority, score,
    max_attempts, max_duration, machine, is_test, ttl_ms, due_at, delayed_until, created_at,
    idempotency_key, parent_id, root_id, depth, batch_id, replay_of, tags, metadata, payload,
    payload_type, idempotency_key_shown, external_deployment, ttl_shown, lease, attempt, starts, losses, alone, updated_at)
values (
    :id, :environment_id, :status, :task, :version_lock, :queue, :concurrency_key, :priority, :score,
    :max_attempts, :max_duration, :machine, :is_test, :ttl_ms, :due_at, :delayed_until, :created_at,
    :idempotency_key, :parent_id, :root_id, :depth, :batch_id, :replay_of, :tags, :metadata, :payload,
    :payload_type, :idempotency_key_shown, :external_deployment, :ttl_shown, 1, 0, 0, 0, 0, :created_at)

-- name: runs_for_update
-- Runs by id, locked until the commit. :ids are run ids.
select runs.* from runs where id in (select value from json_each(:ids)) order by id desc

-- name: runs_by_id
-- Runs by id. :ids are run ids.
select runs.* from runs where id in (select value from json_each(:ids)) order by id

-- name: traced_runs
-- What a trace tells of runs. :ids are run ids.
select id, parent_id, root_id, task, status, version, queue, machine, attempt, starts, suspended, created_at,
       updated_at, started_at, finished_at, attempt_started_at, entries
  from runs where id in (select value from json_each(:ids)) order by id

-- name: traced_children
-- The same of the children of runs: at most :limit, in order. :parents are run ids.
select id, parent_id, root_id, task, status, version, queue, machine, attempt, starts, suspended, created_at,
       updated_at, started_at, finished_at, attempt_started_at, entries
  from runs
 where rowid in (
    select child.rowid from json_each(:parents) as p join runs as child on child.rowid in (
        select rowid from runs where parent_id = p.value order by id limit :limit))
 order by id limit :limit

-- name: run_states
-- Whether runs are final, for those who wait. :ids are run ids.
select id, environment_id, status from runs where id in (select value from json_each(:ids))

-- name: active_family
-- The runs :ids, their children and theirs, and so on, that have not ended, locked. Those who did may have some.
with recursive tree (id) as (
    select value from json_each(:ids)
     union
    select runs.id from tree join runs on runs.parent_id = tree.id
)
select runs.* from tree join runs on runs.id = tree.id
 where runs.finished_at is null and runs.status <> 'CANCELLED'
 order by runs.id desc

-- name: save_runs
-- Writes back runs that were decided on. :changes are [id, lease it was read with, status, lease, score, attempt,
-- losses, alone, worker_id, due_at, delayed_until, updated_at, finished_at, attempt_started_at, error, output, queue,
-- concurrency_key, entries, journal_bytes, suspended, active_ms, operations, output_type, version, version_lock].
-- A run whose lease has moved on stays as it is and is missing from the result.
with c as materialized (select value as v from json_each(:changes))
update runs
   set status = c.v ->> 2, lease = c.v ->> 3, score = c.v ->> 4, attempt = c.v ->> 5, losses = c.v ->> 6,
       alone = c.v ->> 7, worker_id = c.v ->> 8, due_at = c.v ->> 9, delayed_until = c.v ->> 10,
       updated_at = c.v ->> 11, finished_at = c.v ->> 12, attempt_started_at = c.v ->> 13, error = c.v ->> 14,
       output = c.v ->> 15, queue = c.v ->> 16, concurrency_key = c.v ->> 17, entries = c.v ->> 18,
       journal_bytes = c.v ->> 19, suspended = c.v ->> 20, active_ms = c.v ->> 21, operations = c.v ->> 22,
       output_type = c.v ->> 23, version = c.v ->> 24, version_lock = c.v ->> 25
  from c
 where runs.id = c.v ->> 0 and runs.lease = c.v ->> 1
returning runs.id

-- name: held
-- How many runs of each queue and key hold a slot of an environment now. Without the hint the planner walks the
-- whole history by runs_by_environment.
select queue, concurrency_key, count(*) as held
  from runs indexed by runs_held
 where worker_id is not null and environment_id = :environment_id
   and status in ('EXECUTING', 'REATTEMPTING')
 group by queue, concurrency_key

-- name: queues
-- The queues of an environment that hold something back, with the limits in force. Without the hint a
-- planner that has seen few of them reads them all.
select name, coalesce(override_limit, concurrency_limit) as concurrency_limit, per_key_limit, paused
  from queues indexed by queues_limited
 where environment_id = :environment_id
   and (paused = 1 or concurrency_limit is not null or per_key_limit is not null or override_limit is not null)

-- name: queued
-- How many runs of queues wait for a slot. :names are those of the queues. Seeks for each task along runs_ready, and
-- walks what is counted: never what waits in other queues, or has ended.
select queue, sum(queued) as queued
  from (select q.value as queue,
               (select count(*) from runs
                 where runs.status = 'QUEUED' and runs.environment_id = :environment_id
                   and runs.task = tasks.id and runs.queue = q.value) as queued
          from json_each(:names) as q cross join tasks
         where tasks.environment_id = :environment_id) as counted
 group by queue having sum(queued) > 0

-- name: lanes
-- The lanes of an environment that have a queued run: at most :limit, in the order of their names after
-- (:task, :queue, :concurrency_key). Jumps from lane to lane along runs_ready: one seek each for the next key, else
-- the next queue, else the next task, because SQLite uses only the first column of a row comparison here.
with recursive lane (task, queue, concurrency_key) as (
    select :task, :queue, :concurrency_key
    union all
    select next.task, next.queue, next.concurrency_key
      from lane join runs as next on next.rowid = coalesce(
        (select rowid from runs
          where status = 'QUEUED' and environment_id = :environment_id and runs.task = lane.task
            and runs.queue = lane.queue and runs.concurrency_key > lane.concurrency_key
          order by runs.concurrency_key limit 1),
        (select rowid from runs
          where status = 'QUEUED' and environment_id = :environment_id and runs.task = lane.task
            and runs.queue > lane.queue
          order by runs.queue, runs.concurrency_key limit 1),
        (select rowid from runs
          where status = 'QUEUED' and environment_id = :environment_id and runs.task > lane.task
          order by runs.task, runs.queue, runs.concurrency_key limit 1))
     limit :limit + 1
)
select task, queue, concurrency_key from lane limit -1 offset 1

-- name: ready_runs
-- The first :limit runs of each lane that a worker of :version may take. :lanes are [task, queue, concurrency key, score
-- to begin at]. Runs that belong to another version are passed over: those that are locked to it and, where :stay is 1,
-- those that it has begun. But a child, and what was begun, goes to anybody when no worker has its task in that version.
select runs.id, runs.task, runs.score, runs.queue, runs.concurrency_key
  from json_each(:lanes) as lane join runs on runs.rowid in (
    select ready.rowid from runs as ready
     where ready.status = 'QUEUED' and ready.environment_id = :environment_id
       and ready.task = lane.value ->> 0 and ready.queue = lane.value ->> 1
       and ready.concurrency_key = lane.value ->> 2 and ready.score >= lane.value ->> 3
       and ((ready.version_lock is null and (:stay = 0 or ready.version is null or ready.version = :version))
            or ready.version_lock = :version
            or ((ready.version_lock is null or ready.parent_id is not null) and not exists (
                select 1 from workers
                 where workers.environment_id = ready.environment_id
                   and workers.version = coalesce(ready.version_lock, ready.version)
                   and exists (select 1 from json_each(workers.tasks) where value = ready.task))))
     order by ready.score, ready.id limit :limit)

-- name: pinned_runs
-- The same for a worker of another version than the current one: only runs that belong to its own.
select runs.id, runs.task, runs.score, runs.queue, runs.concurrency_key
  from json_each(:lanes) as lane join runs on runs.rowid in (
    select ready.rowid from runs as ready indexed by runs_pinned
     where ready.status = 'QUEUED' and (ready.version_lock is not null or ready.version is not null)
       and ready.environment_id = :environment_id and coalesce(ready.version_lock, ready.version) = :version
       and ready.task = lane.value ->> 0 and ready.queue = lane.value ->> 1
       and ready.concurrency_key = lane.value ->> 2 and ready.score >= lane.value ->> 3
     order by ready.score, ready.id limit :limit)

-- name: start_runs
-- Begins an attempt of each run, or goes on with that of a suspended one. :starts are run ids. :policies are
-- [task, max_attempts, max_duration] for runs that were triggered before their task was known, :max_attempts is for
-- tasks without one. Returns the runs that were still queued.
with c as materialized (select value as id from json_each(:starts)),
     p as materialized (select value ->> 0 as task, value ->> 1 as attempts, value ->> 2 as duration
                          from json_each(:policies))
update runs
   set status = 'EXECUTING', lease = runs.lease + 1, worker_id = :worker_id, version = :version,
       attempt = runs.attempt + 1 - runs.suspended, starts = runs.starts + 1 - runs.suspended,
       resumes = (runs.resumes + 1) * runs.suspended, suspended = 0, due_at = null,
       max_attempts = coalesce(runs.max_attempts, (select p.attempts from p where p.task = runs.task), :max_attempts),
       max_duration = coalesce(runs.max_duration, (select p.duration from p where p.task = runs.task)),
       updated_at = max(:now, runs.created_at),
       attempt_started_at = case when runs.suspended = 1 then runs.attempt_started_at
                                 else max(:now, runs.created_at) end,
       started_at = coalesce(runs.started_at, max(:now, runs.created_at))
  from c
 where runs.id = c.id and runs.status = 'QUEUED'
returning *

-- name: finish_runs
-- Ends runs that succeeded. :outcomes are [id, lease, output, its type]. Returns the runs whose lease was still held.
with c as materialized (select value as v from json_each(:outcomes))
update runs
   set status = 'COMPLETED_SUCCESSFULLY', lease = runs.lease + 1, worker_id = null, output = c.v ->> 2,
       output_type = c.v ->> 3, updated_at = :now, finished_at = :now
  from c
 where runs.id = c.v ->> 0 and runs.lease = c.v ->> 1 and runs.status = 'EXECUTING' and runs.worker_id = :worker_id
returning runs.id

-- name: next_attempts
-- Begins the next attempt of runs whose worker slept the delay. :starts are [id, lease].
with c as materialized (select value as v from json_each(:starts))
update runs
   set status = 'EXECUTING', lease = runs.lease + 1, attempt = runs.attempt + 1, starts = runs.starts + 1,
       resumes = 0, due_at = null, updated_at = :now, attempt_started_at = :now
  from c
 where runs.id = c.v ->> 0 and runs.lease = c.v ->> 1 and runs.status = 'REATTEMPTING'
   and runs.worker_id = :worker_id
returning runs.id, runs.lease, runs.attempt

-- name: save_metadata
-- Writes metadata and tags of runs. :changes are [id, metadata, tags, operations of the code that are written].
with c as materialized (select value as v from json_each(:changes))
update runs set metadata = c.v ->> 1, tags = c.v ->> 2, operations = c.v ->> 3, updated_at = :now
  from c where runs.id = c.v ->> 0

-- name: append_entries
-- Counts new journal entries of runs, which reset the losses in a row. :changes are [id, lease, worker, number of the
-- first one, how many, bytes of their values]. Returns the runs that were held under this lease, had entries up to the
-- first one and have room; what is to be told of the others has to be looked up.
with c as materialized (select value as v from json_each(:changes))
update runs
   set entries = runs.entries + (c.v ->> 4), journal_bytes = runs.journal_bytes + (c.v ->> 5),
       losses = 0, updated_at = :now
  from c
 where runs.id = c.v ->> 0 and runs.lease = c.v ->> 1 and runs.status = 'EXECUTING' and runs.worker_id = c.v ->> 2
   and runs.entries = c.v ->> 3 and runs.entries + (c.v ->> 4) <= :max_entries
   and runs.journal_bytes + (c.v ->> 5) <= :max_bytes
returning runs.id

-- name: add_entries
-- Adds journal entries: executed once for each.
insert into journal (run_id, seq, scope, kind, name, args, ok, value, ref)
values (:run_id, :seq, :scope, :kind, :name, :args, :ok, :value, :ref)

-- name: entries_of
-- The journals of runs, in order. :ids are run ids.
select run_id, seq, scope, kind, name, args, ok, value, ref
  from journal where run_id in (select value from json_each(:ids)) order by run_id, seq

-- name: outcomes
-- How runs ended; outputs of more than :characters are left out. :ids are run ids.
select id, task, status, error,
       output is not null and (length(output) > :characters or output_type is not null) as is_large,
       case when length(output) <= :characters then output end as output
  from runs where +environment_id = :environment_id and id in (select value from json_each(:ids))

-- name: wait_on_runs
-- Whether runs have ended, for those who begin to wait for them: here only one writes at a time. :ids are run ids.
select id, environment_id, status, parent_id as owner from runs where id in (select value from json_each(:ids))

-- name: wait_on_waitpoints
-- The same for tokens. :ids are theirs.
select id, environment_id, status, run_id as owner from waitpoints where id in (select value from json_each(:ids))

-- name: waitpoints_by_id
-- Tokens by id. :ids are theirs.
select * from waitpoints where id in (select value from json_each(:ids)) order by id

-- name: waitpoints_for_update
-- Tokens by id, locked until the commit. :ids are theirs.
select * from waitpoints where id in (select value from json_each(:ids)) order by id

-- name: time_out_waitpoints
-- Ends tokens whose timeout has passed, the most overdue first, with an error. Returns their ids.
update waitpoints
   set status = 'TIMED_OUT', output = :output, output_is_error = 1, completed_at = :now
 where id in (
    select id from waitpoints where status = 'WAITING' and timeout_at <= :now order by timeout_at limit :limit)
returning id

-- name: old_waitpoints
-- Retention: at most :limit tokens that were complete before :before, but none of a run that goes on, and none that
-- is kept for one.
select id from waitpoints
 where environment_id = :environment_id and id < :id_before and completed_at < :before
   and not exists (select 1 from runs where runs.id = waitpoints.run_id and runs.finished_at is null)
   and not exists (select 1 from kept_for join runs as keeper on keeper.id = kept_for.run_id
                    where kept_for.target = waitpoints.id and keeper.finished_at is null)
 order by id limit :limit

-- name: delete_waitpoints
-- Deletes tokens. :ids are theirs.
delete from waitpoints where id in (select value from json_each(:ids))

-- name: save_variables
-- Sets variables, new or not. :variables are [environment_id, name, sealed, bytes, is_secret].
insert into variables (environment_id, name, sealed, bytes, is_secret, created_at, updated_at)
select value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, :now, :now
  from json_each(:variables) where true
    on conflict (environment_id, name)
    do update set sealed = excluded.sealed, bytes = excluded.bytes, is_secret = excluded.is_secret,
                  updated_at = excluded.updated_at

-- name: keep_runs
-- Keeps runs for others than their parents. :uses are [run, the one that uses it].
insert into kept_for (target, run_id)
select used.id, c.value ->> 1
  from json_each(:uses) as c
  join runs as used on used.id = c.value ->> 0
  join runs as keeper on keeper.id = c.value ->> 1 and keeper.environment_id = used.environment_id
 where used.parent_id is not keeper.id
    on conflict do nothing

-- name: keep_waitpoints
-- Keeps tokens for runs that did not make them. :uses are [token, run].
insert into kept_for (target, run_id)
select used.id, c.value ->> 1
  from json_each(:uses) as c
  join waitpoints as used on used.id = c.value ->> 0
  join runs as keeper on keeper.id = c.value ->> 1 and keeper.environment_id = used.environment_id
 where used.run_id is not keeper.id
    on conflict do nothing

-- name: add_waits
-- Keeps what suspended runs wait for. :waits are [run_id, part, number, target, due_at, wake].
insert into waits (run_id, part, number, target, due_at, wake)
select value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5 from json_each(:waits)

-- name: waits_on
-- Who waits for runs or tokens. :targets are their ids.
select distinct run_id from waits where target in (select value from json_each(:targets))

-- name: suspended_runs
-- Those of the runs that are suspended, locked.
select runs.* from runs
 where id in (select value from json_each(:ids)) and status = 'WAITING_TO_RESUME'
 order by id desc

-- name: end_waits
-- Ends waits of :runs, which are locked, for :targets. Returns [run_id, part, target, wake] of each.
delete from waits
 where target in (select value from json_each(:targets)) and +run_id in (select value from json_each(:runs))
returning run_id, part, target, wake

-- name: end_due_waits
-- Ends waits of :runs, which are locked, for a time that has come. Returns [run_id, part, target, wake] of each.
delete from waits
 where run_id in (select value from json_each(:runs)) and +due_at <= :now and target is null
returning run_id, part, target, wake

-- name: look_later
-- Looks at targets of :runs again at :due_at, or with null never: they tell themselves. :targets are ids.
update waits set due_at = :due_at
 where target in (select value from json_each(:targets)) and +run_id in (select value from json_each(:runs))

-- name: parts_waiting
-- Which of these have something left to wait for. :parts are [run_id, part].
select p.value ->> 0 as run_id, p.value ->> 1 as part from json_each(:parts) as p
 where exists (select 1 from waits where run_id = p.value ->> 0 and part = p.value ->> 1)

-- name: delete_waits
-- Forgets what runs waited for, which are locked. :runs are run ids.
delete from waits where run_id in (select value from json_each(:runs))

-- name: add_attempts
-- Keeps attempts that are followed by another one. :attempts are [id, run_id, number, status, started_at,
-- completed_at, error].
insert into attempts (id, run_id, number, status, started_at, completed_at, error)
select value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6
  from json_each(:attempts) where true
    on conflict (id) do nothing

-- name: add_tags
-- Tags runs. :tags are [environment_id, tag, run_id].
insert into run_tags (environment_id, tag, run_id)
select value ->> 0, value ->> 1, value ->> 2 from json_each(:tags) where true
    on conflict (environment_id, tag, run_id) do nothing

-- name: keys
-- Who holds idempotency keys. :keys are [environment_id, task, key].
select k.environment_id, k.task, k.key, k.run_id, k.expires_at, runs.status
  from json_each(:keys) as c
  join idempotency_keys as k
    on k.environment_id = c.value ->> 0 and k.task = c.value ->> 1 and k.key = c.value ->> 2
  join runs on runs.id = k.run_id

-- name: save_keys
-- Gives idempotency keys to runs. :keys are [environment_id, task, key, run_id, expires_at].
insert into idempotency_keys (environment_id, task, key, run_id, expires_at)
select value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 from json_each(:keys) where true
    on conflict (environment_id, task, key)
    do update set run_id = excluded.run_id, expires_at = excluded.expires_at

-- name: task_specs
-- What was registered about tasks, and whether the current deployment lacks them. :ids are task ids.
select id, spec, retired from tasks
 where environment_id = :environment_id and id in (select value from json_each(:ids))

-- name: known_queues
-- Those of the queues that there are. :names are theirs.
select name from queues
 where environment_id = :environment_id and name in (select value from json_each(:names))

-- name: external_versions
-- The versions that other systems call so. :ids are external ids.
select external_id, version from external_deployments
 where environment_id = :environment_id and external_id in (select value from json_each(:ids))

-- name: retire_tasks
-- Retires the tasks that the current deployment does not have. :ids are those it has.
update tasks set retired = 1
 where environment_id = :environment_id and id not in (select value from json_each(:ids))

-- name: due_runs
-- Runs whose time has come, the most overdue first.
select runs.* from runs where due_at <= :now order by due_at limit :limit

-- name: parked_runs
-- Runs that waited for a version with their task and queue, or for a deployment, which has come; oldest first. Those
-- whose journal did not fit the version that they ran on wait for another one, if they may run on another one.
select runs.* from runs
 where status = 'WAITING_FOR_DEPLOY'
   and exists (select 1 from tasks where tasks.environment_id = runs.environment_id and tasks.id = runs.task
                  and tasks.version is not runs.version
                  and (tasks.retired = 0 or runs.version_lock is not null or runs.external_deployment is not null))
   and (runs.queue = 'task/' || runs.task
        or exists (select 1 from queues
                    where queues.environment_id = runs.environment_id and queues.name = runs.queue))
   and (runs.external_deployment is null or runs.version_lock is not null
        or exists (select 1 from external_deployments as external
                    where external.environment_id = runs.environment_id
                      and external.external_id = runs.external_deployment))
   and (runs.version_lock is null or runs.version is not runs.version_lock
        or (runs.parent_id is not null and not exists (
            select 1 from workers
             where workers.environment_id = runs.environment_id and workers.version = runs.version_lock
               and exists (select 1 from json_each(workers.tasks) where value = runs.task))))
 order by environment_id, task, id limit :limit

-- name: lost_workers
-- Workers whose lease is over, the most overdue first.
select id from workers where lease_until < :before order by lease_until limit :limit

-- name: runs_of_worker
-- What a worker holds, locked: at most :limit runs.
select runs.* from runs where worker_id = :worker_id order by id limit :limit

-- name: cancelled_of_workers
-- Cancelled runs whose process is still to be stopped. :ids are worker ids.
select worker_id, id, lease from runs
 where worker_id in (select value from json_each(:ids)) and status = 'CANCELLED'

-- name: add_logs
-- Keeps log records. :logs are [run_id, attempt, at, level, logger, message].
insert into logs (run_id, attempt, at, level, logger, message)
select value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5 from json_each(:logs)

-- name: old_runs
-- Retention: at most :limit runs that finished before :before, but none that a run may ask for that goes on:
-- its children, and what is kept for it.
select id from runs
 where environment_id = :environment_id and id < :id_before and finished_at < :before
   and not exists (select 1 from runs as parent where parent.id = runs.parent_id and parent.finished_at is null)
   and not exists (select 1 from kept_for join runs as keeper on keeper.id = kept_for.run_id
                    where kept_for.target = runs.id and keeper.finished_at is null)
 order by id limit :limit

-- name: delete_journals
-- Deletes at most :entries journal entries of runs. :ids are theirs. Returns the run of each.
delete from journal where (run_id, seq) in (
    select run_id, seq from journal where run_id in (select value from json_each(:ids)) limit :entries)
returning run_id

-- name: delete_finished
-- Deletes those of the runs that have no journal any more. :ids are theirs. Returns their ids.
delete from runs
 where id in (select value from json_each(:ids))
   and not exists (select 1 from journal where journal.run_id = runs.id)
returning id

-- name: delete_requests
-- Forgets at most :limit request keys from before :before. Returns them.
delete from requests where (environment_id, key) in (
    select environment_id, key from requests where created_at < :before limit :limit)
returning key

-- name: next_bulk_action
-- The bulk action that nobody has gone on with for longest: here only one writes at a time.
select * from bulk_actions where status = 'PENDING' order by updated_at, id limit 1

-- name: add_bulk_members
-- Members of a bulk action that were named. :ids are run ids.
insert into bulk_members (bulk_id, run_id) select :bulk_id, value from json_each(:ids)

-- name: batches_for_update
-- Batches by id, locked until the commit. :ids are theirs.
select * from batches where id in (select value from json_each(:ids)) order by id

-- name: items_at
-- Items of batches that have arrived. :places are [batch_id, number].
select i.batch_id, i.number, i.run_id, i.is_cached, i.error
  from json_each(:places) as c
  join batch_items as i on i.batch_id = c.value ->> 0 and i.number = c.value ->> 1

-- name: add_batch_items
-- Keeps what became of items: executed once for each.
insert into batch_items (batch_id, number, task, run_id, is_cached, error)
values (:batch_id, :number, :task, :run_id, :is_cached, :error)

-- name: count_items
-- Counts items of batches, which are locked, and seals those that have all. :counts are [batch_id, how many more].
-- Returns the batches.
with c as materialized (select value as v from json_each(:counts))
update batches
   set arrived = batches.arrived + (c.v ->> 1), updated_at = :now,
       sealed_at = case when batches.arrived + (c.v ->> 1) = batches.run_count then :now end,
       due_at = case when batches.arrived + (c.v ->> 1) < batches.run_count then batches.due_at end
  from c where batches.id = c.v ->> 0
returning *

-- name: abort_batches
-- Ends batches whose items did not arrive in time, the most overdue first, and takes their keys. Returns their ids.
update batches set aborted_at = :now, updated_at = :now, due_at = null, key_digest = null
 where id in (select id from batches where due_at <= :now order by due_at limit :limit)
returning id

-- name: delete_batches
-- Retention: deletes at most :limit batches from before :before that wait for no item and whose runs are all gone.
-- Returns their ids.
delete from batches where id in (
    select id from batches
     where environment_id = :environment_id and created_at < :before and due_at is null
       and not exists (select 1 from batch_items as i join runs on runs.id = i.run_id where i.batch_id = batches.id)
     order by created_at limit :limit)
returning id

-- name: delete_used_tokens
-- Forgets at most :limit one-time tokens that have expired before :before. Returns their digests.
delete from used_tokens where digest in (
    select digest from used_tokens where expires_at < :before order by expires_at limit :limit)
returning digest

-- name: add_packets
-- Makes room for objects. :keys are theirs; nobody's use of them is looked for before :due_at. Returns those that are
-- not being deleted.
insert into packets (key, created_at, due_at)
select value, :now, :due_at from json_each(:keys) where true
    on conflict (key) do update set due_at = excluded.due_at where packets.deleting = 0
returning key

-- name: packets_in_use
-- Of :keys those that a run uses.
select key from packets where key in (select value from json_each(:keys))
   and exists (select 1 from packet_runs where packet_runs.key = packets.key)

-- name: packets_to_use
-- Of :keys those that runs may begin to use, locked against being deleted.
select key from packets where key in (select value from json_each(:keys)) and deleting = 0

-- name: use_packets
-- Keeps packets for runs. :uses are [key, run].
insert into packet_runs (key, run_id) select value ->> 0, value ->> 1 from json_each(:uses) where true
    on conflict do nothing

-- name: release_packets
-- Upkeep is to look at the packets of runs that are no more, at :now. :runs are their ids.
update packets set due_at = :now where key in (
    select key from packet_runs where run_id in (select value from json_each(:runs)))

-- name: forget_packet_runs
-- :runs are ids of runs that are no more.
delete from packet_runs where run_id in (select value from json_each(:runs))

-- name: due_packets
-- At most :limit packets whose time to be looked at has come, locked.
select key from packets where due_at <= :now order by due_at limit :limit

-- name: condemn_packets
-- Of :keys those that no run uses are to be deleted, which is tried again at :due_at; returns them.
update packets set deleting = 1, due_at = :due_at
 where key in (select value from json_each(:keys))
   and not exists (select 1 from packet_runs where packet_runs.key = packets.key)
returning key

-- name: keep_packets
-- Of :keys those that a run uses are not to be looked at until it is no more.
update packets set due_at = null
 where key in (select value from json_each(:keys))
   and exists (select 1 from packet_runs where packet_runs.key = packets.key)

-- name: delete_packets
-- The objects of :keys are gone.
delete from packets where key in (select value from json_each(:keys)) and deleting = 1

-- name: lock_schedules
-- Serialises changes of schedules: here the only writer does.
select 1 as locked where 0

-- name: schedule_for_update
-- A schedule of an environment.
select * from schedules where id = :id and environment_id = :environment_id

-- name: schedule_of_key
-- The schedule of a project that has a deduplication key.
select * from schedules where project = :project and deduplication_key = :key

-- name: due_schedules
-- Schedules with a tick whose time has come, the most overdue first, and what matters of their
-- environments.
select schedules.*, environments.type as environment_type, environments.archived_at
  from schedules join environments on environments.id = schedules.environment_id
 where schedules.due_at <= :now order by schedules.due_at limit :limit

-- name: known_ticks
-- Those of the ticks that were decided on. :ticks are [schedule_id, tick_at].
select ticks.schedule_id, ticks.tick_at
  from json_each(:ticks) as c join ticks
    on ticks.schedule_id = c.value ->> 0 and ticks.tick_at = c.value ->> 1

-- name: add_ticks
-- Keeps what became of ticks. :ticks are [schedule_id, tick_at, run_id, refusal].
insert into ticks (schedule_id, tick_at, run_id, refusal, at)
select value ->> 0, value ->> 1, value ->> 2, value ->> 3, :now from json_each(:ticks)

-- name: move_schedules
-- Moves schedules to their next ticks. :moves are [id, tick_at, due_at, last_at, last_run_id].
update schedules
   set tick_at = c.value ->> 1, due_at = c.value ->> 2, last_at = c.value ->> 3, last_run_id = c.value ->> 4
  from json_each(:moves) as c
 where schedules.id = c.value ->> 0

-- name: forget_ticks
-- Forgets the ticks of runs that are no more. :runs are their ids.
delete from ticks where run_id in (select value from json_each(:runs))

-- name: forget_refusals
-- Forgets at most :limit ticks that made no run, from before :before.
delete from ticks where (schedule_id, tick_at) in (
    select schedule_id, tick_at from ticks where run_id is null and at < :before order by at limit :limit)
