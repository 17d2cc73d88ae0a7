-- Environment variables. A value is sealed under the master key; `bytes` is its size before that.
create table variables (
    environment_id  text collate "C" not null references environments (id),
    name            text collate "C" not null,
    sealed          text not null,
    bytes           integer not null,
    is_secret       integer not null,
    created_at      bigint not null,
    updated_at      bigint not null,
    primary key (environment_id, name)
);
