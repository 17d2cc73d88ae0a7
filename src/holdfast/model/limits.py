"""The numbers that bound what comes from outside; `docs/reference/limits.md` is made of these lines.

Each is `NAME = value  # unit; of what`. Bytes are those of UTF-8.
"""

MAX_PAYLOAD = 3 * 1024 * 1024  # bytes; the payload of a run
MAX_OUTPUT = 10 * 1024 * 1024  # bytes; the output of a run
MAX_METADATA = 256 * 1024  # bytes; the metadata of a run
MAX_DEPTH = 100  # levels; nesting of any JSON that comes in
MAX_INTEGER_DIGITS = 1_000  # digits; in an integer in JSON
MAX_TAGS = 10  # tags; on a run
MAX_TAG = 128  # characters; in a tag, which has at least one
MAX_TASK_ID = 128  # characters; in the id of a task
MAX_QUEUE_NAME = 128  # characters; in the name of a queue
MAX_QUEUE_LIMIT = 100_000  # runs; of a queue that may be made to run at once
MAX_CONCURRENCY_KEY = 128  # characters; in the concurrency key of a run
MAX_IDEMPOTENCY_KEY = 2_048  # characters; in the idempotency key of a run
MAX_DURATION_TEXT = 100  # characters; in a duration or date as text, such as "1h30m"
MAX_BATCH = 1_000  # runs; in one batch trigger, which has at least one
MAX_BATCH_BYTES = 64 * 1024 * 1024  # bytes; the body of a batch trigger
MAX_BATCH_LINE = 3 * 1024 * 1024  # bytes; a line in the stream of a batch's items
MAX_BATCH_OPENING = 131_072  # bytes; the body that creates a batch whose items come later
MAX_LEGACY_BATCH = 500  # runs; in one batch of `POST /api/v2/tasks/batch`
MAX_LEGACY_BATCH_BYTES = 1_000_000  # bytes; its body
MAX_PAGE = 100  # runs; on a page of a list, at most
DEFAULT_PAGE = 25  # runs; on a page of a list, unless asked otherwise
MAX_ATTEMPTS = 250  # attempts; at a run, at most
MAX_LOSSES = 10  # losses; of its worker in a row after which a run ends CRASHED
MIN_MAX_DURATION = 5  # seconds; the least time limit of an attempt
NO_MAX_DURATION = 2_147_483_647  # seconds; a time limit that stands for none
MAX_LOG_MESSAGE = 16 * 1024  # characters; in the message of a log record, the rest is cut off
MAX_LOGS_PER_RUN = 10_000  # records; kept of the log of a run
MAX_REPORTS = 2_000  # reports; in one request of a worker
MAX_SLOTS = 10_000  # runs; in the hands of one worker at the same time
MAX_TASKS = 5_000  # tasks; registered by one worker, and as many queues
MAX_TRACE_RUNS = 1_000  # runs; in one trace: a run and its descendants, the elders first
MAX_TRACE_SPANS = 10_000  # spans; in a trace as a tree, and on a page of one
MAX_TRACE_LOGS = 1_000  # records; of the log, in a trace as a tree and with a span
MAX_STEP_RESULT = 3 * 1024 * 1024  # bytes; the result of a step
MAX_JOURNAL_ENTRIES = 50_000  # entries; in the journal of a run
MAX_JOURNAL_BYTES = 32 * 1024 * 1024  # bytes; all results in the journal of a run
MAX_ENTRIES = 1_000  # entries; of a journal, and runs triggered, in one report of a worker
MAX_SCOPE = 512  # characters; in the scope of a journal entry
MAX_ENTRY_NAME = 256  # characters; in the name of a journal entry
MAX_WAITS = 20_000  # waits; of one suspended run
MAX_TOKEN_DATA = 10 * 1024  # bytes; the data that completes a token
MAX_BULK_RUNS = 500  # runs; named in one bulk action; a filter may select any number
MAX_BULK_NAME = 255  # characters; in the name of a bulk action
