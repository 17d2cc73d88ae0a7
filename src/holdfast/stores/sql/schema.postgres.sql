table api_keys
    id text collate "C" not null
    environment_id text collate "C" not null
    kind text not null
    name text not null
    digest text collate "C" not null
    shown text not null
    sealed text
    scopes text
    created_at bigint not null
    expires_at bigint
    revoked_at bigint
  constraint api_keys_environment_id_fkey FOREIGN KEY (environment_id) REFERENCES environments(id)
  constraint api_keys_pkey PRIMARY KEY (id)
  CREATE INDEX api_keys_by_environment ON api_keys USING btree (environment_id, id)
  CREATE UNIQUE INDEX api_keys_by_digest ON api_keys USING btree (digest)
  CREATE UNIQUE INDEX api_keys_pkey ON api_keys USING btree (id)

table attempts
    id text collate "C" not null
    run_id text collate "C" not null
    number bigint not null
    status text collate "C" not null
    started_at bigint not null
    completed_at bigint
    error text
  constraint attempts_pkey PRIMARY KEY (id)
  constraint attempts_run_id_fkey FOREIGN KEY (run_id) REFERENCES runs(id) ON DELETE CASCADE
  CREATE INDEX attempts_by_run ON attempts USING btree (run_id, id)
  CREATE UNIQUE INDEX attempts_pkey ON attempts USING btree (id)

table batch_items
    batch_id text collate "C" not null
    number bigint not null
    task text collate "C" not null
    run_id text collate "C"
    is_cached bigint not null
    error text collate "C"
  constraint batch_items_pkey PRIMARY KEY (batch_id, number)
  CREATE UNIQUE INDEX batch_items_pkey ON batch_items USING btree (batch_id, number)

table batches
    id text collate "C" not null
    environment_id text collate "C" not null
    run_count bigint not null
    arrived bigint not null default 0
    created_at bigint not null
    updated_at bigint not null
    sealed_at bigint
    aborted_at bigint
    due_at bigint
    key_digest text collate "C"
    key_shown text collate "C"
    key_expires_at bigint
    parent_id text collate "C"
  constraint batches_pkey PRIMARY KEY (id)
  CREATE INDEX batches_by_age ON batches USING btree (environment_id, created_at)
  CREATE INDEX batches_due ON batches USING btree (due_at) WHERE (due_at IS NOT NULL)
  CREATE UNIQUE INDEX batches_by_key ON batches USING btree (key_digest) WHERE (key_digest IS NOT NULL)
  CREATE UNIQUE INDEX batches_pkey ON batches USING btree (id)

table bulk_actions
    id text collate "C" not null
    environment_id text collate "C" not null
    type text collate "C" not null
    status text collate "C" not null
    name text
    filter text
    scanned text collate "C" not null
    scan_until text collate "C"
    acted text collate "C" not null
    total bigint not null
    success bigint not null
    failure bigint not null
    created_at bigint not null
    updated_at bigint not null
    completed_at bigint
  constraint bulk_actions_pkey PRIMARY KEY (id)
  CREATE INDEX bulk_actions_by_environment ON bulk_actions USING btree (environment_id, id)
  CREATE INDEX bulk_actions_pending ON bulk_actions USING btree (updated_at, id) WHERE (status = 'PENDING'::text)
  CREATE UNIQUE INDEX bulk_actions_pkey ON bulk_actions USING btree (id)

table bulk_members
    bulk_id text collate "C" not null
    run_id text collate "C" not null
  constraint bulk_members_bulk_id_fkey FOREIGN KEY (bulk_id) REFERENCES bulk_actions(id)
  constraint bulk_members_pkey PRIMARY KEY (bulk_id, run_id)
  CREATE UNIQUE INDEX bulk_members_pkey ON bulk_members USING btree (bulk_id, run_id)

table deployments
    id text collate "C" not null
    environment_id text collate "C" not null
    version text collate "C" not null
    short_code text not null
    status text not null
    runtime text
    runtime_version text
    git text
    external_id text collate "C"
    created_at bigint not null
    deployed_at bigint
    tasks text not null
    queues text not null
  constraint deployments_environment_id_fkey FOREIGN KEY (environment_id) REFERENCES environments(id)
  constraint deployments_pkey PRIMARY KEY (id)
  CREATE INDEX deployments_by_environment ON deployments USING btree (environment_id, id)
  CREATE UNIQUE INDEX deployments_by_version ON deployments USING btree (environment_id, version)
  CREATE UNIQUE INDEX deployments_pkey ON deployments USING btree (id)

table environments
    id text collate "C" not null
    concurrency_limit bigint not null
    paused bigint not null default 0
    created_at bigint not null
    project_id text collate "C" not null default 'proj_default'::text
    type text collate "C" not null default 'dev'::text
    branch text collate "C"
    archived_at bigint
    current_version text collate "C"
  constraint environments_pkey PRIMARY KEY (id)
  CREATE UNIQUE INDEX environments_by_project ON environments USING btree (project_id, type, COALESCE(branch, ''::text))
  CREATE UNIQUE INDEX environments_pkey ON environments USING btree (id)

table external_deployments
    environment_id text collate "C" not null
    external_id text collate "C" not null
    version text collate "C" not null
  constraint external_deployments_environment_id_fkey FOREIGN KEY (environment_id) REFERENCES environments(id)
  constraint external_deployments_pkey PRIMARY KEY (environment_id, external_id, version)
  CREATE UNIQUE INDEX external_deployments_pkey ON external_deployments USING btree (environment_id, external_id, version)

table idempotency_keys
    environment_id text collate "C" not null
    task text collate "C" not null
    key text collate "C" not null
    run_id text collate "C" not null
    expires_at bigint not null
  constraint idempotency_keys_pkey PRIMARY KEY (environment_id, task, key)
  constraint idempotency_keys_run_id_fkey FOREIGN KEY (run_id) REFERENCES runs(id) ON DELETE CASCADE
  CREATE INDEX idempotency_keys_by_run ON idempotency_keys USING btree (run_id)
  CREATE UNIQUE INDEX idempotency_keys_pkey ON idempotency_keys USING btree (environment_id, task, key)

table journal with (autovacuum_vacuum_insert_scale_factor=0.0, autovacuum_vacuum_insert_threshold=100000)
    run_id text collate "C" not null
    seq bigint not null
    scope text collate "C" not null
    kind text collate "C" not null
    name text collate "C" not null
    args text collate "C"
    ok bigint
    value text
    ref text collate "C"
  constraint journal_pkey PRIMARY KEY (run_id, seq)
  CREATE UNIQUE INDEX journal_pkey ON journal USING btree (run_id, seq)

table kept_for
    target text collate "C" not null
    run_id text collate "C" not null
  constraint kept_for_pkey PRIMARY KEY (run_id, target)
  constraint kept_for_run_id_fkey FOREIGN KEY (run_id) REFERENCES runs(id) ON DELETE CASCADE
  CREATE INDEX kept_for_by_target ON kept_for USING btree (target)
  CREATE UNIQUE INDEX kept_for_pkey ON kept_for USING btree (run_id, target)

table logs
    id bigint not null identity
    run_id text collate "C" not null
    attempt bigint not null
    at bigint not null
    level text collate "C" not null
    logger text collate "C" not null
    message text not null
  constraint logs_pkey PRIMARY KEY (id)
  constraint logs_run_id_fkey FOREIGN KEY (run_id) REFERENCES runs(id) ON DELETE CASCADE
  CREATE INDEX logs_by_run ON logs USING btree (run_id, id)
  CREATE UNIQUE INDEX logs_pkey ON logs USING btree (id)

table migrations
    name text collate "C" not null
    applied_at bigint not null
  constraint migrations_pkey PRIMARY KEY (name)
  CREATE UNIQUE INDEX migrations_pkey ON migrations USING btree (name)

table packet_runs
    key text collate "C" not null
    run_id text collate "C" not null
  constraint packet_runs_key_fkey FOREIGN KEY (key) REFERENCES packets(key)
  constraint packet_runs_pkey PRIMARY KEY (key, run_id)
  CREATE INDEX packet_runs_by_run ON packet_runs USING btree (run_id)
  CREATE UNIQUE INDEX packet_runs_pkey ON packet_runs USING btree (key, run_id)

table packets
    key text collate "C" not null
    created_at bigint not null
    due_at bigint
    deleting bigint not null default 0
  constraint packets_pkey PRIMARY KEY (key)
  CREATE INDEX packets_due ON packets USING btree (due_at) WHERE (due_at IS NOT NULL)
  CREATE UNIQUE INDEX packets_pkey ON packets USING btree (key)

table projects
    id text collate "C" not null
    ref text collate "C" not null
    name text not null
    created_at bigint not null
  constraint projects_pkey PRIMARY KEY (id)
  CREATE UNIQUE INDEX projects_by_ref ON projects USING btree (ref)
  CREATE UNIQUE INDEX projects_pkey ON projects USING btree (id)

table queues
    environment_id text collate "C" not null
    name text collate "C" not null
    concurrency_limit bigint
    per_key_limit bigint
    paused bigint not null default 0
    id text collate "C"
    override_limit bigint
    overridden_at bigint
  constraint queues_environment_id_fkey FOREIGN KEY (environment_id) REFERENCES environments(id)
  constraint queues_pkey PRIMARY KEY (environment_id, name)
  CREATE INDEX queues_limited ON queues USING btree (environment_id, name, concurrency_limit, per_key_limit, override_limit, paused) WHERE ((paused = 1) OR (concurrency_limit IS NOT NULL) OR (per_key_limit IS NOT NULL) OR (override_limit IS NOT NULL))
  CREATE UNIQUE INDEX queues_by_id ON queues USING btree (id)
  CREATE UNIQUE INDEX queues_pkey ON queues USING btree (environment_id, name)

table requests
    environment_id text collate "C" not null
    key text collate "C" not null
    answer text not null
    created_at bigint not null
  constraint requests_pkey PRIMARY KEY (environment_id, key)
  CREATE INDEX requests_by_age ON requests USING btree (created_at)
  CREATE UNIQUE INDEX requests_pkey ON requests USING btree (environment_id, key)

table run_tags
    environment_id text collate "C" not null
    tag text collate "C" not null
    run_id text collate "C" not null
  constraint run_tags_pkey PRIMARY KEY (environment_id, tag, run_id)
  constraint run_tags_run_id_fkey FOREIGN KEY (run_id) REFERENCES runs(id) ON DELETE CASCADE
  CREATE INDEX run_tags_by_run ON run_tags USING btree (run_id)
  CREATE UNIQUE INDEX run_tags_pkey ON run_tags USING btree (environment_id, tag, run_id)

table runs with (fillfactor=70, autovacuum_vacuum_scale_factor=0.0, autovacuum_vacuum_threshold=5000, autovacuum_analyze_scale_factor=0.0, autovacuum_analyze_threshold=5000, autovacuum_vacuum_cost_delay=0)
    id text collate "C" not null
    environment_id text collate "C" not null
    status text collate "C" not null
    lease bigint not null
    task text collate "C" not null
    version text collate "C"
    version_lock text collate "C"
    queue text collate "C" not null
    concurrency_key text collate "C" not null
    priority bigint not null
    score bigint not null
    attempt bigint not null
    starts bigint not null
    losses bigint not null
    alone bigint not null
    max_attempts bigint
    max_duration bigint
    machine text collate "C"
    worker_id text collate "C"
    is_test bigint not null
    ttl_ms bigint
    due_at bigint
    delayed_until bigint
    created_at bigint not null
    updated_at bigint not null
    started_at bigint
    finished_at bigint
    attempt_started_at bigint
    idempotency_key text collate "C"
    parent_id text collate "C"
    root_id text collate "C"
    depth bigint not null
    batch_id text collate "C"
    replay_of text collate "C"
    tags text not null
    metadata text not null
    error text
    payload text
    output text
    entries bigint not null default 0
    journal_bytes bigint not null default 0
    suspended bigint not null default 0
    resumes bigint not null default 0
    active_ms bigint not null default 0
    operations bigint not null default 0
    payload_type text collate "C"
    output_type text collate "C"
    idempotency_key_shown text
    external_deployment text collate "C"
    ttl_shown text
  constraint runs_pkey PRIMARY KEY (id)
  CREATE INDEX runs_by_batch ON runs USING btree (batch_id, id) WHERE (batch_id IS NOT NULL)
  CREATE INDEX runs_by_environment ON runs USING btree (environment_id, id)
  CREATE INDEX runs_by_parent ON runs USING btree (parent_id, id) WHERE (parent_id IS NOT NULL)
  CREATE INDEX runs_by_task ON runs USING btree (environment_id, task, id)
  CREATE INDEX runs_due ON runs USING btree (due_at) WHERE (due_at IS NOT NULL)
  CREATE INDEX runs_held ON runs USING btree (worker_id, environment_id, queue, concurrency_key, status) WHERE (worker_id IS NOT NULL)
  CREATE INDEX runs_parked ON runs USING btree (environment_id, task, id) WHERE (status = 'WAITING_FOR_DEPLOY'::text)
  CREATE INDEX runs_pinned ON runs USING btree (environment_id, COALESCE(version_lock, version), task, queue, concurrency_key, score, id) WHERE ((status = 'QUEUED'::text) AND ((version_lock IS NOT NULL) OR (version IS NOT NULL)))
  CREATE INDEX runs_ready ON runs USING btree (environment_id, task, queue, concurrency_key, score, id) WHERE (status = 'QUEUED'::text)
  CREATE INDEX runs_unfinished ON runs USING btree (environment_id, id) WHERE (finished_at IS NULL)
  CREATE INDEX runs_unsuccessful ON runs USING btree (environment_id, status, id) WHERE ((finished_at IS NOT NULL) AND (status <> 'COMPLETED_SUCCESSFULLY'::text))
  CREATE UNIQUE INDEX runs_pkey ON runs USING btree (id)

table schedules
    id text collate "C" not null
    environment_id text collate "C" not null
    project text collate "C" not null
    type text collate "C" not null
    task text collate "C" not null
    expression text not null
    timezone text not null
    spread_window text
    overlap text not null
    catch_up text not null
    external_id text collate "C"
    deduplication_key text collate "C"
    active bigint not null default 1
    tick_at bigint not null
    due_at bigint
    last_at bigint
    last_run_id text collate "C"
    created_at bigint not null
    updated_at bigint not null
  constraint schedules_environment_id_fkey FOREIGN KEY (environment_id) REFERENCES environments(id)
  constraint schedules_pkey PRIMARY KEY (id)
  CREATE INDEX schedules_by_environment ON schedules USING btree (environment_id, id)
  CREATE INDEX schedules_due ON schedules USING btree (due_at) WHERE (due_at IS NOT NULL)
  CREATE UNIQUE INDEX schedules_by_key ON schedules USING btree (project, deduplication_key) WHERE (deduplication_key IS NOT NULL)
  CREATE UNIQUE INDEX schedules_by_task ON schedules USING btree (environment_id, task) WHERE (type = 'DECLARATIVE'::text)
  CREATE UNIQUE INDEX schedules_pkey ON schedules USING btree (id)

table tasks
    environment_id text collate "C" not null
    id text collate "C" not null
    version text collate "C" not null
    spec text not null
    retired bigint not null default 0
  constraint tasks_environment_id_fkey FOREIGN KEY (environment_id) REFERENCES environments(id)
  constraint tasks_pkey PRIMARY KEY (environment_id, id)
  CREATE UNIQUE INDEX tasks_pkey ON tasks USING btree (environment_id, id)

table ticks
    schedule_id text collate "C" not null
    tick_at bigint not null
    run_id text collate "C"
    refusal text
    at bigint not null
  constraint ticks_pkey PRIMARY KEY (schedule_id, tick_at)
  CREATE INDEX ticks_by_schedule ON ticks USING btree (schedule_id, run_id) WHERE (run_id IS NOT NULL)
  CREATE INDEX ticks_refused ON ticks USING btree (at) WHERE (run_id IS NULL)
  CREATE UNIQUE INDEX ticks_by_run ON ticks USING btree (run_id) WHERE (run_id IS NOT NULL)
  CREATE UNIQUE INDEX ticks_pkey ON ticks USING btree (schedule_id, tick_at)

table used_tokens
    digest text collate "C" not null
    used_by text not null
    expires_at bigint not null
  constraint used_tokens_pkey PRIMARY KEY (digest)
  CREATE INDEX used_tokens_by_expiry ON used_tokens USING btree (expires_at)
  CREATE UNIQUE INDEX used_tokens_pkey ON used_tokens USING btree (digest)

table variables
    environment_id text collate "C" not null
    name text collate "C" not null
    sealed text not null
    bytes integer not null
    is_secret integer not null
    created_at bigint not null
    updated_at bigint not null
  constraint variables_environment_id_fkey FOREIGN KEY (environment_id) REFERENCES environments(id)
  constraint variables_pkey PRIMARY KEY (environment_id, name)
  CREATE UNIQUE INDEX variables_pkey ON variables USING btree (environment_id, name)

table versions
    environment_id text collate "C" not null
    version text collate "C" not null
    fingerprint text collate "C" not null
    created_at bigint not null
    tasks text
    queues text
  constraint versions_environment_id_fkey FOREIGN KEY (environment_id) REFERENCES environments(id)
  constraint versions_pkey PRIMARY KEY (environment_id, version)
  CREATE INDEX versions_by_code ON versions USING btree (environment_id, fingerprint)
  CREATE UNIQUE INDEX versions_pkey ON versions USING btree (environment_id, version)

table waitpoints
    id text collate "C" not null
    environment_id text collate "C" not null
    status text collate "C" not null
    output text
    output_is_error bigint not null default 0
    created_at bigint not null
    completed_at bigint
    timeout_at bigint
    idempotency_key text collate "C"
    idempotency_key_expires_at bigint
    tags text not null
    schema text
    run_id text collate "C"
  constraint waitpoints_pkey PRIMARY KEY (id)
  CREATE INDEX waitpoints_by_environment ON waitpoints USING btree (environment_id, id)
  CREATE INDEX waitpoints_due ON waitpoints USING btree (timeout_at) WHERE ((status = 'WAITING'::text) AND (timeout_at IS NOT NULL))
  CREATE UNIQUE INDEX waitpoints_by_key ON waitpoints USING btree (environment_id, idempotency_key) WHERE (idempotency_key IS NOT NULL)
  CREATE UNIQUE INDEX waitpoints_pkey ON waitpoints USING btree (id)

table waits with (autovacuum_vacuum_scale_factor=0.0, autovacuum_vacuum_threshold=5000, autovacuum_analyze_scale_factor=0.0, autovacuum_analyze_threshold=5000, autovacuum_vacuum_cost_delay=0)
    run_id text collate "C" not null
    number bigint not null
    part bigint not null
    target text collate "C"
    due_at bigint
    wake text collate "C" not null
  constraint waits_pkey PRIMARY KEY (run_id, part, number)
  constraint waits_run_id_fkey FOREIGN KEY (run_id) REFERENCES runs(id) ON DELETE CASCADE
  CREATE INDEX waits_by_target ON waits USING btree (target) WHERE (target IS NOT NULL)
  CREATE INDEX waits_due ON waits USING btree (due_at) WHERE (due_at IS NOT NULL)
  CREATE UNIQUE INDEX waits_pkey ON waits USING btree (run_id, part, number)

table workers
    id text collate "C" not null
    environment_id text collate "C" not null
    name text collate "C" not null
    version text collate "C" not null
    tasks text not null
    lease_until bigint not null
    created_at bigint not null
  constraint workers_environment_id_fkey FOREIGN KEY (environment_id) REFERENCES environments(id)
  constraint workers_pkey PRIMARY KEY (id)
  CREATE INDEX workers_by_lease ON workers USING btree (lease_until)
  CREATE UNIQUE INDEX workers_pkey ON workers USING btree (id)
