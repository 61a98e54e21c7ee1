"""Platforms and proxies that cut a request which takes too long, with their limits as documented in 2026."""

from __future__ import annotations

import logging
from collections.abc import Mapping

log = logging.getLogger("wsgi_timeout")

#: Seconds after which these platforms cut a request, by a variable that they set.
PLATFORMS = {
    "DYNO": ("Heroku", 30),
    "AWS_LAMBDA_FUNCTION_NAME": ("AWS Lambda behind API Gateway", 29),
    "K_SERVICE": ("Cloud Run, by its default", 300),
    "WEBSITE_SITE_NAME": ("Azure App Service", 230),
    "CONTAINER_APP_NAME": ("Azure Container Apps", 240),
    "FLY_APP_NAME": ("Fly.io", 60),
    "RAILWAY_ENVIRONMENT": ("Railway", 900),
    "GAE_ENV": ("App Engine standard", 600),
    "VCAP_APPLICATION": ("Cloud Foundry", 900),
}
#: Seconds after which proxies and platforms cut a request, by their defaults.
LIMITS = {
    29: "API Gateway",
    30: "Heroku, CloudFront, Google Cloud's balancers",
    45: "Azure Static Web Apps",
    60: "nginx, AWS ALB, Fly.io",
    100: "Cloudflare, DigitalOcean",
    120: "AWS App Runner, Cloudflare by its newer default",
    230: "Azure App Service",
    240: "Azure Container Apps",
    300: "Cloud Run",
    600: "App Engine",
    900: "Railway, Cloud Foundry",
}
#: Seconds of a limit that are left for everything but the wait: `worker_wait`, the body, the answer.
_MARGIN_SECONDS = 10
#: How far from a limit a request may be seen to end that was cut by it.
_NEAR_SECONDS = 1.5


def wait_below(limit: float) -> int:
    """Return a `wait_seconds` for a proxy that cuts after `limit` seconds."""
    return max(1, int(max(limit - _MARGIN_SECONDS, limit / 2)))


def of_limit(seconds: float) -> str:
    """Return who cuts after about so many seconds; empty: nobody that is known."""
    nearest = min(LIMITS, key=lambda limit: abs(limit - seconds))
    return LIMITS[nearest] if abs(nearest - seconds) < _NEAR_SECONDS else ""


def shorter_than(wait_seconds: float) -> str:
    """Return who would cut such a wait, with the limits."""
    return ", ".join(f"{who} ({limit} s)" for limit, who in LIMITS.items() if limit <= wait_seconds)


def cut_by(wait_seconds: float, environment: Mapping[str, str]) -> tuple[str, int] | None:
    """Return the platform that this environment is of and its limit, if it cuts such a wait."""
    for variable, (platform, limit) in PLATFORMS.items():
        if variable in environment and wait_seconds >= limit:
            return platform, limit
    return None


def warn_of_platform(wait_seconds: float, environment: Mapping[str, str]) -> None:
    """Log a line if the platform that this process runs on cuts the wait."""
    if found := cut_by(wait_seconds, environment):
        platform, limit = found
        log.warning(
            "%s cuts a request after %d s, and wait_seconds is %g: set WSGI_TIMEOUT_WAIT_SECONDS=%d",
            platform,
            limit,
            wait_seconds,
            wait_below(limit),
        )
