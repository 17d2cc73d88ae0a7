-- Statements whose text is the same in both databases.

-- name: environment
-- One environment.
select id, concurrency_limit, paused from environments where id = :id

-- name: set_environment
-- Changes an environment's limit and whether it is paused. Returns its id.
update environments set concurrency_limit = :concurrency_limit, paused = :paused where id = :id returning id

-- name: run
-- One run of an environment.
select runs.* from runs where id = :id and environment_id = :environment_id

-- name: children
-- The first :limit children of a run, oldest first.
select runs.* from runs where parent_id = :parent_id order by id limit :limit

-- name: attempts
-- The earlier attempts of a run, oldest first; the last one is in the run itself.
select id, run_id, number, status, started_at, completed_at, error
  from attempts where run_id = :run_id order by id

-- name: queue_of_id
-- One queue, by its id.
select id, name, concurrency_limit, per_key_limit, paused, override_limit, overridden_at
  from queues where environment_id = :environment_id and id = :id

-- name: queue_of_name
-- One queue, by its name.
select id, name, concurrency_limit, per_key_limit, paused, override_limit, overridden_at
  from queues where environment_id = :environment_id and name = :name

-- name: queues_page
-- Queues in the order of their names: at most :limit, after the first :skipped ones.
select id, name, concurrency_limit, per_key_limit, paused, override_limit, overridden_at
  from queues where environment_id = :environment_id and id is not null
 order by name limit :limit offset :skipped

-- name: count_queues
-- How many queues an environment has.
select count(*) as queues from queues where environment_id = :environment_id and id is not null

-- name: set_queue_paused
-- Pauses or resumes a queue, known or not.
insert into queues (environment_id, name, paused) values (:environment_id, :name, :paused)
    on conflict (environment_id, name) do update set paused = excluded.paused

-- name: override_queue
-- Puts another limit in the place of the declared one; with null that is in force again.
update queues set override_limit = :override_limit, overridden_at = :overridden_at
 where environment_id = :environment_id and name = :name

-- name: add_queue
-- Makes a queue that a task uses, unless there is one of this name.
insert into queues (environment_id, name, id) values (:environment_id, :name, :id)
    on conflict (environment_id, name) do nothing

-- name: worker
-- One worker.
select id, environment_id, version, tasks, lease_until from workers where id = :id

-- name: add_worker
-- A worker that registers.
insert into workers (id, environment_id, name, version, tasks, lease_until, created_at)
values (:id, :environment_id, :name, :version, :tasks, :lease_until, :now)

-- name: renew_worker
-- Renews a worker's lease; returns its id unless it was declared lost.
update workers set lease_until = :lease_until where id = :id returning id

-- name: remove_worker
-- Forgets a worker. Its runs must have been given back in the same transaction.
delete from workers where id = :id returning id

-- name: next_worker_lease
-- When the next worker is lost unless it renews.
select min(lease_until) as at from workers

-- name: next_due
-- When upkeep has to look at a run, a wait, a token or a schedule next, and whether there is a bulk action to go on with.
select min(at) as at, (select count(*) from (select 1 from bulk_actions where status = 'PENDING' limit 1) as pending)
       as bulk_actions
  from (
    select min(due_at) as at from runs where due_at is not null
    union all
    select min(due_at) from waits where due_at is not null
    union all
    select min(timeout_at) from waitpoints where status = 'WAITING' and timeout_at is not null
    union all
    select min(due_at) from batches where due_at is not null
    union all
    select min(due_at) from schedules where due_at is not null) as next

-- name: latest_versions
-- The highest versions of an environment, in order. Their times of creation may go back, when the clock did.
select version, fingerprint from versions
 where environment_id = :environment_id
 order by substr(version, 1, 8) desc, length(version) desc, version desc limit 20

-- name: version
-- A version, with the names of its tasks and queues as JSON, where they are known.
select version, tasks, queues from versions where environment_id = :environment_id and version = :version

-- name: versions_of_code
-- The versions of the same code, deployed ones and newer ones before the others.
select versions.version, deployments.version is not null as deployed
  from versions left join deployments
    on deployments.environment_id = versions.environment_id and deployments.version = versions.version
 where versions.environment_id = :environment_id and versions.fingerprint = :fingerprint
 order by 2 desc, substr(versions.version, 1, 8) desc, length(versions.version) desc, versions.version desc limit 1

-- name: add_version
-- A new version. :tasks and :queues are the names of what it has.
insert into versions (environment_id, version, fingerprint, created_at, tasks, queues)
values (:environment_id, :version, :fingerprint, :now, :tasks, :queues)

-- name: save_task
-- Declares a task; the newest registration wins.
insert into tasks (environment_id, id, version, spec) values (:environment_id, :id, :version, :spec)
    on conflict (environment_id, id)
    do update set version = excluded.version, spec = excluded.spec, retired = 0

-- name: announce_task
-- A task of a version that is not the current deployment, unless that has one of this name.
insert into tasks (environment_id, id, version, spec, retired) values (:environment_id, :id, :version, :spec, 1)
    on conflict (environment_id, id) do nothing

-- name: deploys
-- The type of an environment, and which deployment is current.
select type, current_version from environments where id = :id

-- name: set_current_version
-- Plain runs of an environment go to this version from now on.
update environments set current_version = :version where id = :id

-- name: deployment_of_version
-- The deployment of a version.
select * from deployments where environment_id = :environment_id and version = :version

-- name: current_deployment
-- The deployment that plain runs go to.
select deployments.*
  from environments join deployments
    on deployments.environment_id = environments.id and deployments.version = environments.current_version
 where environments.id = :id

-- name: deployment
-- A deployment by its id.
select * from deployments where environment_id = :environment_id and id = :id

-- name: deployments_page
-- At most :limit deployments with an id before :before, newest first, made from :since to :until. The empty status is
-- any.
select * from deployments
 where environment_id = :environment_id and id < :before and created_at >= :since and created_at <= :until
   and (:status = '' or status = :status)
 order by id desc limit :limit

-- name: add_deployment
-- A new deployment; it waits to be promoted.
insert into deployments (id, environment_id, version, short_code, status, runtime, runtime_version, git, external_id,
                         created_at, tasks, queues)
values (:id, :environment_id, :version, :short_code, 'PENDING', :runtime, :runtime_version, :git, :external_id,
        :now, :tasks, :queues)

-- name: deploy_again
-- The same code was deployed again: what is told about it is told anew.
update deployments
   set runtime = :runtime, runtime_version = :runtime_version, git = coalesce(:git, git),
       external_id = coalesce(:external_id, external_id)
 where id = :id

-- name: promote_deployment
-- A deployment that was promoted. When it was for the first time stays.
update deployments set status = 'DEPLOYED', deployed_at = coalesce(deployed_at, :now) where id = :id

-- name: add_external_deployment
-- Another system's name for a version.
insert into external_deployments (environment_id, external_id, version)
values (:environment_id, :external_id, :version)
    on conflict (environment_id, external_id, version) do nothing

-- name: save_queue
-- Declares a queue's limits; whether it is paused and what overrides them stays.
insert into queues (environment_id, name, id, concurrency_limit, per_key_limit)
values (:environment_id, :name, :id, :concurrency_limit, :per_key_limit)
    on conflict (environment_id, name)
    do update set concurrency_limit = excluded.concurrency_limit, per_key_limit = excluded.per_key_limit

-- name: request
-- The answer that a request key got.
select answer from requests where environment_id = :environment_id and key = :key

-- name: add_request
-- Remembers an answer.
insert into requests (environment_id, key, answer, created_at) values (:environment_id, :key, :answer, :now)

-- name: logs
-- What a run logged, oldest first, after the id :after.
select id, attempt, at, level, logger, message from logs
 where run_id = :run_id and id > :after order by id limit :limit

-- name: count_logs
-- How many records a run has logged, counted up to :limit.
select count(*) as records from (select 1 from logs where run_id = :run_id limit :limit) as counted

-- name: release_key
-- Gives an idempotency key back. Returns the run that held it.
delete from idempotency_keys
 where environment_id = :environment_id and task = :task and key = :key returning run_id

-- name: held_by_worker
-- The ids of the runs whose slot a worker holds.
select id from runs where worker_id = :worker_id and status in ('EXECUTING', 'REATTEMPTING') order by id

-- name: journal_page
-- Entries of a run after the number :after, in order: at most :limit, and at most :characters of values, but for one
-- entry that has more by itself.
select seq, scope, kind, name, args, ok, value, ref
  from (select page.*, sum(coalesce(length(value), 0)) over (order by seq) as characters
          from (select * from journal where run_id = :run_id and seq > :after order by seq limit :limit) as page
       ) as counted
 where characters <= :characters or seq = :after + 1
 order by seq

-- name: traced_entries
-- Entries of a run after the number :after, in order, at most :limit: what a trace tells of them. The beginning of a
-- value says what was made and when a sleep is due; `refused` says that something was not made.
select seq, scope, kind, name, ok, ref,
       case when kind in ('sleep', 'trigger', 'token') then substr(value, 1, 200) end as value,
       case when kind = 'trigger' and value like '%"error"%' then 1 else 0 end as refused
  from journal where run_id = :run_id and seq > :after order by seq limit :limit

-- name: moments_before
-- The last :limit entries of a run before the number :before that tell what time it was, the latest first.
select seq, scope, kind, name, ref, substr(value, 1, 200) as value
  from journal
 where run_id = :run_id and seq < :before
   and (kind in ('sleep', 'trigger', 'token') or (kind = 'done' and ref is null))
 order by seq desc limit :limit

-- name: traced_attempts
-- The earlier attempts of a run as a trace tells them, oldest first.
select id, run_id, number, status, started_at, completed_at from attempts where run_id = :run_id order by id

-- name: attempt_logs
-- The first :limit records that a run logged in an attempt.
select id, attempt, at, level, logger, message from logs
 where run_id = :run_id and attempt = :attempt order by id limit :limit

-- name: values_between
-- The values of entries of a run, from the number :first to before :until.
select seq, kind, value from journal where run_id = :run_id and seq >= :first and seq < :until order by seq

-- name: due_waits
-- What suspended runs wait for and whose time has come, the most overdue first.
select run_id, target from waits where due_at <= :now order by due_at limit :limit

-- name: add_waitpoint
-- A new token.
insert into waitpoints (id, environment_id, status, created_at, timeout_at, idempotency_key,
                        idempotency_key_expires_at, tags, schema, run_id)
values (:id, :environment_id, 'WAITING', :now, :timeout_at, :idempotency_key,
        :idempotency_key_expires_at, :tags, :schema, :run_id)

-- name: waitpoint_of_key
-- The token that holds an idempotency key.
select * from waitpoints where environment_id = :environment_id and idempotency_key = :key

-- name: release_waitpoint_key
-- Takes the idempotency key from a token.
update waitpoints set idempotency_key = null, idempotency_key_expires_at = null where id = :id

-- name: complete_waitpoint
-- Completes a token with its output. Returns its id, unless it was complete.
update waitpoints set status = 'COMPLETED', output = :output, completed_at = :now
 where id = :id and status = 'WAITING' returning id

-- name: batch
-- One batch of an environment.
select * from batches where id = :id and environment_id = :environment_id

-- name: batch_of_key
-- The batch that holds an idempotency key.
select * from batches where key_digest = :key_digest

-- name: release_batch_key
-- Takes the idempotency key from a batch.
update batches set key_digest = null where id = :id

-- name: add_batch
-- A new batch; one that is there already stays as it is.
insert into batches (id, environment_id, run_count, created_at, updated_at, due_at, key_digest, key_shown,
                     key_expires_at, parent_id)
values (:id, :environment_id, :run_count, :now, :now, :due_at, :key_digest, :key_shown, :key_expires_at, :parent_id)
    on conflict (id) do nothing

-- name: batch_items
-- The items of a batch, in order, with the status of their runs.
select i.number, i.task, i.run_id, i.error, runs.status, runs.updated_at
  from batch_items as i left join runs on runs.id = i.run_id
 where i.batch_id = :batch_id
 order by i.number

-- name: stuck_runs
-- The audit of invariant I11: unfinished runs without exactly one reason to move, and runs with waits that are not
-- suspended. Returns none in a sound store.
select runs.id, runs.status
  from runs left join workers on workers.id = runs.worker_id
 where runs.finished_at is null
   and not (
        (runs.status = 'QUEUED' and runs.worker_id is null)
     or (runs.status = 'DELAYED' and runs.due_at is not null and runs.worker_id is null)
     or (runs.status = 'WAITING_FOR_DEPLOY' and runs.worker_id is null)
     or (runs.status = 'EXECUTING' and workers.id is not null and runs.due_at is null)
     or (runs.status = 'REATTEMPTING'
         and (runs.due_at is not null or workers.id is not null)
         and (runs.worker_id is null) = (workers.id is null))
     or (runs.status = 'WAITING_TO_RESUME' and runs.worker_id is null and runs.suspended = 1
         and exists (select 1 from waits where waits.run_id = runs.id))
     or (runs.status = 'CANCELLED' and runs.due_at is not null))
 union
select runs.id, runs.status
  from waits join runs on runs.id = waits.run_id
 where runs.status <> 'WAITING_TO_RESUME'
 order by 1 limit 100

-- name: add_bulk_action
-- A new action on many runs.
insert into bulk_actions (id, environment_id, type, status, name, filter, scanned, scan_until, acted, total, success,
                          failure, created_at, updated_at)
values (:id, :environment_id, :type, 'PENDING', :name, :filter, :scanned, :scan_until, '', :total, 0, 0, :now, :now)

-- name: bulk_action
-- One bulk action of an environment.
select * from bulk_actions where id = :id and environment_id = :environment_id

-- name: save_bulk_action
-- How far a bulk action has come, which is locked.
update bulk_actions
   set status = :status, scanned = :scanned, scan_until = :scan_until, acted = :acted, total = :total,
       success = :success, failure = :failure, updated_at = :updated_at, completed_at = :completed_at
 where id = :id

-- name: abort_bulk_action
-- Ends a bulk action before its end. Returns its id unless it has ended.
update bulk_actions set status = 'ABORTED', updated_at = :now, completed_at = :now
 where id = :id and environment_id = :environment_id and status = 'PENDING' returning id

-- name: bulk_window
-- The last of the next :looked runs of an environment after :after and before :until; none when there are fewer.
select id from runs where environment_id = :environment_id and id > :after and id < :until
 order by id limit 1 offset :looked - 1

-- name: bulk_members
-- The next :limit members of a bulk action after :after, with the length of their payloads.
select bulk_members.run_id, coalesce(length(runs.payload), 0) as size
  from bulk_members left join runs on runs.id = bulk_members.run_id
 where bulk_id = :bulk_id and run_id > :after order by run_id limit :limit

-- name: delete_bulk_members
-- Retention: deletes at most :members members of bulk actions that ended before :before. Returns the action of each.
delete from bulk_members where (bulk_id, run_id) in (
    select bulk_id, run_id
      from (select id from bulk_actions
             where environment_id = :environment_id and id < :id_before and completed_at < :before
             order by id limit :limit) as old
      join bulk_members on bulk_members.bulk_id = old.id
     limit :members)
returning bulk_id

-- name: delete_bulk_actions
-- Retention: deletes at most :limit bulk actions that ended before :before and have no members any more.
delete from bulk_actions where id in (
    select id from bulk_actions where environment_id = :environment_id and id < :id_before and completed_at < :before
       and not exists (select 1 from bulk_members where bulk_id = bulk_actions.id)
     order by id limit :limit)

-- name: token_use
-- What a one-time token was used for.
select used_by from used_tokens where digest = :digest

-- name: use_token
-- Notes that a one-time token is used. Returns its digest, unless it was noted before.
insert into used_tokens (digest, used_by, expires_at) values (:digest, :used_by, :expires_at)
    on conflict (digest) do nothing returning digest

-- name: projects
-- All projects, the oldest first.
select id, ref, name, created_at from projects order by created_at, id

-- name: add_project
-- A new project. Returns its id, unless its ref is taken.
insert into projects (id, ref, name, created_at) values (:id, :ref, :name, :now)
    on conflict (ref) do nothing returning id

-- name: environment_ids
-- The ids of all environments.
select id from environments order by id

-- name: full_environments
-- All environments, with their projects.
select e.id, e.type, e.branch, e.concurrency_limit, e.archived_at, e.created_at,
       e.project_id, p.ref, p.name, p.created_at as project_created_at
  from environments as e join projects as p on p.id = e.project_id

-- name: full_environment
-- One environment, with its project.
select e.id, e.type, e.branch, e.concurrency_limit, e.archived_at, e.created_at,
       e.project_id, p.ref, p.name, p.created_at as project_created_at
  from environments as e join projects as p on p.id = e.project_id
 where e.id = :id

-- name: branch_environment
-- The environment of a branch, with its project.
select e.id, e.type, e.branch, e.concurrency_limit, e.archived_at, e.created_at,
       e.project_id, p.ref, p.name, p.created_at as project_created_at
  from environments as e join projects as p on p.id = e.project_id
 where e.project_id = :project_id and e.type = 'preview' and coalesce(e.branch, '') = :branch

-- name: add_environment
-- A new environment, unless it is there.
insert into environments (id, project_id, type, branch, concurrency_limit, created_at)
values (:id, :project_id, :type, :branch, :concurrency_limit, :now) on conflict do nothing

-- name: archive_environment
-- Archives a branch, or with null brings it back.
update environments set archived_at = :archived_at where id = :id and branch is not null

-- name: api_keys
-- Every key.
select id, environment_id, kind, name, digest, shown, sealed, scopes, created_at, expires_at, revoked_at from api_keys

-- name: api_key
-- One key.
select id, environment_id, kind, name, digest, shown, sealed, scopes, created_at, expires_at, revoked_at
  from api_keys where id = :id

-- name: key_of_digest
-- The key that has a digest, in force or not.
select id, environment_id, kind, name, digest, shown, sealed, scopes, created_at, expires_at, revoked_at
  from api_keys where digest = :digest

-- name: root_keys
-- The root keys of an environment that were not revoked.
select k.id, k.environment_id, k.kind, k.name, k.digest, k.shown, k.sealed, k.scopes, k.created_at, k.expires_at,
       k.revoked_at
  from environments as e join api_keys as k on k.environment_id = e.id
 where e.project_id = :project_id and e.type = :type and coalesce(e.branch, '') = ''
   and k.kind = 'root' and k.revoked_at is null

-- name: add_key
-- A new key.
insert into api_keys (id, environment_id, kind, name, digest, shown, sealed, scopes, created_at)
values (:id, :environment_id, :kind, :name, :digest, :shown, :sealed, :scopes, :now)

-- name: expire_key
-- Ends a key at :until. Returns its id, unless it is revoked or ends already.
update api_keys set expires_at = :until
 where id = :id and expires_at is null and revoked_at is null returning id

-- name: revoke_key
-- Ends a key now, and forgets what was sealed of it.
update api_keys set revoked_at = :now, sealed = null where id = :id and revoked_at is null

-- name: runs_of_packet
-- At most :limit of the runs that use a packet, the newest first.
select run_id from packet_runs where key = :key order by run_id desc limit :limit

-- name: packet
-- An object that is not being deleted.
select key from packets where key = :key and deleting = 0

-- name: variables
-- The variables of an environment, and if it is a branch those of the environment that it belongs to.
select environment_id, name, sealed, is_secret from variables
 where environment_id = :environment_id
 union all
select variables.environment_id, variables.name, variables.sealed, variables.is_secret
  from environments as own
  join environments as parent
    on parent.project_id = own.project_id and parent.type = own.type and parent.branch is null
  join variables on variables.environment_id = parent.id
 where own.id = :environment_id and own.branch is not null

-- name: parent_environment
-- The id of the environment that a branch belongs to.
select parent.id
  from environments as own
  join environments as parent
    on parent.project_id = own.project_id and parent.type = own.type and parent.branch is null
 where own.id = :environment_id and own.branch is not null

-- name: variable_sizes
-- The variables of an environment itself, without their values.
select name, bytes, is_secret from variables where environment_id = :environment_id

-- name: delete_variable
-- Deletes a variable. Returns its name.
delete from variables where environment_id = :environment_id and name = :name returning name

-- name: sealed_keys
-- The keys that are sealed.
select id, environment_id, digest, sealed from api_keys where sealed is not null

-- name: sealed_variables
-- The variables of all environments.
select environment_id, name, sealed from variables

-- name: reseal_key
-- Seals a key anew. Returns its id, unless what was sealed is no longer :old.
update api_keys set sealed = :sealed where id = :id and sealed = :old returning id

-- name: reseal_variable
-- Seals a variable anew. Returns its name, unless what was sealed is no longer :old.
update variables set sealed = :sealed
 where environment_id = :environment_id and name = :name and sealed = :old returning name

-- name: schedule_project
-- The project of an environment.
select project_id as project from environments where id = :id

-- name: schedule
-- A schedule of an environment, with what became of its latest tick.
select schedules.*, ticks.tick_at as last_tick_at, ticks.run_id as last_tick_run_id, ticks.refusal as last_tick_refusal
  from schedules left join ticks
    on ticks.schedule_id = schedules.id
   and ticks.tick_at = (select max(latest.tick_at) from ticks as latest where latest.schedule_id = schedules.id)
 where schedules.id = :id and schedules.environment_id = :environment_id

-- name: schedules_page
-- The same of schedules, oldest first: at most :limit, after the first :skipped ones.
select schedules.*, ticks.tick_at as last_tick_at, ticks.run_id as last_tick_run_id, ticks.refusal as last_tick_refusal
  from schedules left join ticks
    on ticks.schedule_id = schedules.id
   and ticks.tick_at = (select max(latest.tick_at) from ticks as latest where latest.schedule_id = schedules.id)
 where schedules.environment_id = :environment_id
 order by schedules.id limit :limit offset :skipped

-- name: count_schedules
-- How many schedules an environment has.
select count(*) as schedules from schedules where environment_id = :environment_id

-- name: count_project_schedules
-- How many schedules of a project the API made.
select count(*) as schedules from schedules where project = :project and deduplication_key is not null

-- name: schedule_of_run
-- The schedule that made a run, if it is still there.
select schedules.*
  from ticks join schedules on schedules.id = ticks.schedule_id
 where ticks.run_id = :run_id and schedules.environment_id = :environment_id

-- name: declared_schedules
-- The schedules that the tasks of an environment declare.
select * from schedules where environment_id = :environment_id and type = 'DECLARATIVE' order by task

-- name: add_schedule
-- A new schedule.
insert into schedules (id, environment_id, project, type, task, expression, timezone, spread_window, overlap, catch_up,
                       external_id, deduplication_key, active, tick_at, due_at, created_at, updated_at)
values (:id, :environment_id, :project, :type, :task, :expression, :timezone, :spread_window, :overlap, :catch_up,
        :external_id, :deduplication_key, :active, :tick_at, :due_at, :created_at, :updated_at)

-- name: change_schedule
-- Changes a schedule; what it did last stays.
update schedules
   set environment_id = :environment_id, task = :task, expression = :expression, timezone = :timezone,
       spread_window = :spread_window, overlap = :overlap, catch_up = :catch_up, external_id = :external_id,
       active = :active, tick_at = :tick_at, due_at = :due_at, updated_at = :updated_at
 where id = :id

-- name: delete_schedule
-- Deletes a schedule.
delete from schedules where id = :id

-- name: delete_refusals
-- Forgets the ticks of a schedule that made no run.
delete from ticks where schedule_id = :schedule_id and run_id is null

-- name: tasks_of_live_workers
-- The tasks of each worker of an environment that is alive, as JSON.
select tasks from workers where environment_id = :environment_id and lease_until > :now
