-- Projects, their environments, and the keys of each. What came before belongs to the default project.
create table projects (
    id          text primary key,
    ref         text not null,
    name        text not null,
    created_at  integer not null
) strict, without rowid;

create unique index projects_by_ref on projects (ref);

insert into projects (id, ref, name, created_at) values ('proj_default', 'proj_default', 'Default', 0);

-- A branch is an environment of its own beside the one of type preview that it belongs to.
alter table environments add column project_id text not null default 'proj_default';
alter table environments add column type text not null default 'dev';
alter table environments add column branch text;
alter table environments add column archived_at integer;

update environments set type = id;

insert into environments (id, concurrency_limit, created_at, type) values ('preview', 1000, 0, 'preview');

create unique index environments_by_project on environments (project_id, type, coalesce(branch, ''));

-- Every key is known by its digest. Root keys can be opened as well, because they sign public tokens.
create table api_keys (
    id              text primary key,
    environment_id  text not null references environments (id),
    kind            text not null,
    name            text not null,
    digest          text not null,
    shown           text not null,
    sealed          text,
    scopes          text,
    created_at      integer not null,
    expires_at      integer,
    revoked_at      integer
) strict, without rowid;

create unique index api_keys_by_digest on api_keys (digest);
create index api_keys_by_environment on api_keys (environment_id, id);

-- Public tokens that may be used a single time, and were. Kept until they expire by themselves.
create table used_tokens (
    digest      text primary key,
    used_by     text not null,
    expires_at  integer not null
) strict, without rowid;

create index used_tokens_by_expiry on used_tokens (expires_at);
