-- Runs and tokens that a run uses and did not make: found by an idempotency key, or known by their id. Retention leaves
-- them while that run goes on.
create table kept_for (
    target  text not null,
    run_id  text not null references runs (id) on delete cascade,
    primary key (run_id, target)
) strict, without rowid;

create index kept_for_by_target on kept_for (target);
