-- Schedules: what is triggered again and again. :tick_at is the next tick, :due_at when that makes its run, which is
-- null while the schedule is not active; :last_at is the tick of the last run that it made.
create table schedules (
    id                 text primary key,
    environment_id     text not null references environments (id),
    project            text not null,
    type               text not null,
    task               text not null,
    expression         text not null,
    timezone           text not null,
    spread_window      text,
    overlap            text not null,
    catch_up           text not null,
    external_id        text,
    deduplication_key  text,
    active             integer not null default 1,
    tick_at            integer not null,
    due_at             integer,
    last_at            integer,
    last_run_id        text,
    created_at         integer not null,
    updated_at         integer not null
) strict, without rowid;

create unique index schedules_by_key on schedules (project, deduplication_key) where deduplication_key is not null;
create unique index schedules_by_task on schedules (environment_id, task) where type = 'DECLARATIVE';
create index schedules_by_environment on schedules (environment_id, id);
create index schedules_due on schedules (due_at) where due_at is not null;

-- What became of each tick: a run, or why there is none. Its key is what makes a tick happen once.
-- No foreign keys: runs outlive their schedules.
create table ticks (
    schedule_id  text not null,
    tick_at      integer not null,
    run_id       text,
    refusal      text,
    at           integer not null,
    primary key (schedule_id, tick_at)
) strict, without rowid;

create unique index ticks_by_run on ticks (run_id) where run_id is not null;
create index ticks_by_schedule on ticks (schedule_id, run_id) where run_id is not null;
create index ticks_refused on ticks (at) where run_id is null;
