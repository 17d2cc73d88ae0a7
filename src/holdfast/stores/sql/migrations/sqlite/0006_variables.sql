-- Environment variables. A value is sealed under the master key; `bytes` is its size before that.
create table variables (
    environment_id  text not null references environments (id),
    name            text not null,
    sealed          text not null,
    bytes           integer not null,
    is_secret       integer not null,
    created_at      integer not null,
    updated_at      integer not null,
    primary key (environment_id, name)
) strict, without rowid;
