"""The tests that concern each module of store, front, pool and worker, the quick ones first.

A file stands for its tests that are not slow; a slow test is named by itself. A module that is not listed has
the tests of its package.
"""

STORE, FRONT, JOBS = "wsgi_timeout/store/", "wsgi_timeout/front/", "jobs/wsgi_timeout_jobs/"
_CALLS = "store/test_calls.py store/test_attempts.py store/test_rq_state.py functions/test_functions.py"
_STREAMS = "store/test_streams.py store/test_resumable_streams.py front/test_uploads.py"
_CONTRACT = (
    "front/contract/test_http_contract.py front/contract/test_redirects.py front/contract/test_result_url.py"
)
_PAGE = "front/test_navigations.py front/test_own_address.py front/test_waiting_page.py"
_POOL = "jobs/test_pool_decisions.py jobs/test_leaving.py faults/test_pool.py faults/test_stops.py"
_WORKER = "jobs/test_pool_decisions.py jobs/test_threads.py faults/test_stops.py faults/test_handlers.py"

_TESTS = {
    f"{STORE}attempts.py": "store/test_attempts.py store/test_costs.py store/test_durability.py"
    " faults/test_moments.py",
    f"{STORE}call_list.py": "serving/test_look_commands.py faults/test_failed_calls.py",
    f"{STORE}calls.py": _CALLS,
    f"{STORE}claims.py": "store/test_calls.py front/test_preferences.py",
    f"{STORE}connection.py": "store/test_commands.py store/test_wrong_password.py faults/test_redis_away.py",
    f"{STORE}enqueue.py": f"{_CALLS} store/test_untold.py store/test_abandoned.py",
    f"{STORE}everysec.py": "store/test_durability.py",
    f"{STORE}failed_calls.py": "store/test_lists.py faults/test_failed_calls.py",
    f"{STORE}first_waits.py": "store/test_first_waits.py front/test_navigations.py",
    f"{STORE}gauges.py": "serving/test_metrics.py",
    f"{STORE}handovers.py": "store/test_handovers.py front/test_navigations.py",
    f"{STORE}keys.py": "store/test_calls.py store/test_rq_state.py",
    f"{STORE}redis_connections.py": "store/test_wrong_password.py faults/test_redis_refuses.py",
    f"{STORE}messages.py": "store/test_messages.py functions/test_functions.py",
    f"{STORE}packing.py": "store/test_messages.py",
    f"{STORE}queue.py": "store/test_attempts.py store/test_rq_state.py store/test_oldest_redis.py",
    f"{STORE}record.py": f"store/test_calls.py store/test_attempts.py {_CONTRACT}",
    f"{STORE}redis_errors.py": "store/test_redis_errors.py faults/test_redis_refuses.py",
    f"{STORE}redis_url.py": "store/test_redis_url.py store/test_sentinel_urls.py",
    f"{STORE}rq_state.py": "store/test_rq_state.py jobs/test_stock_rq.py",
    f"{STORE}seals.py": "jobs/test_seals.py",
    f"{STORE}sentinels.py": "store/test_sentinel_urls.py"
    " faults/test_sentinel.py::test_a_failover_under_traffic",
    f"{STORE}streams.py": _STREAMS,
    f"{STORE}synced.py": "store/test_durability.py",
    f"{STORE}time_limit.py": "store/test_commands.py front/test_cut_off.py",
    f"{STORE}worker_list.py": "store/test_lists.py serving/test_look_commands.py",
    f"{STORE}workers.py": "store/test_workers.py watching/test_leases.py",
    f"{FRONT}accept.py": f"{_CONTRACT} front/test_no_wait.py front/test_left_clients.py {_PAGE}",
    f"{FRONT}browser_answers.py": _PAGE,
    f"{FRONT}delivery.py": f"{_CONTRACT} faults/test_clients.py",
    f"{FRONT}error_pages.py": f"{_CONTRACT} front/test_uploads.py serving/test_logs.py",
    f"{FRONT}event_stream.py": "front/streams/test_resume.py",
    f"{FRONT}first_waits.py": f"{_PAGE}",
    f"{FRONT}front.py": f"{_CONTRACT} integrations/test_extension.py",
    f"{FRONT}handover.py": f"{_PAGE}",
    f"{FRONT}web_server_limits.py": "front/test_decisions.py front/test_front_process.py"
    " serving/test_other_servers.py",
    f"{FRONT}idempotency.py": "front/test_decisions.py front/test_preferences.py",
    f"{FRONT}large_body.py": "front/test_decisions.py front/test_uploads.py faults/test_broken_uploads.py"
    " wsgi/test_bodies.py",
    f"{FRONT}web_server.py": "front/test_decisions.py serving/test_other_servers.py",
    f"{FRONT}places.py": "front/test_places.py front/test_waiters.py",
    f"{FRONT}policy.py": _CONTRACT,
    f"{FRONT}process.py": "front/test_front_process.py front/test_waiters.py",
    f"{FRONT}put_off.py": "front/test_waiters.py serving/test_slow_clients.py",
    f"{FRONT}redirects.py": f"front/test_redirect_kinds.py {_CONTRACT}",
    f"{FRONT}replay.py": f"{_CONTRACT} wsgi/test_bodies.py",
    f"{FRONT}result_urls.py": f"{_CONTRACT} {_PAGE}",
    f"{FRONT}resumed_stream.py": "front/streams/test_resume.py",
    f"{FRONT}shown.py": _PAGE,
    f"{FRONT}status_url.py": "front/test_decisions.py front/test_no_wait.py front/streams/test_resume.py",
    f"{FRONT}submit.py": f"{_CONTRACT} front/test_no_wait.py serving/test_metrics.py",
    f"{FRONT}told_early.py": f"front/test_left_clients.py {_PAGE}",
    f"{FRONT}turns.py": "front/test_front_process.py front/test_waiters.py",
    f"{FRONT}upload_ttl.py": "front/test_upload_ttl.py",
    f"{FRONT}wait.py": f"{_CONTRACT} front/test_cut_off.py front/test_waiters.py",
    f"{FRONT}waiting_page.py": _PAGE,
    f"{JOBS}pool/child.py": _POOL,
    f"{JOBS}pool/children.py": _POOL,
    f"{JOBS}pool/deadlines.py": "jobs/test_pool_decisions.py faults/test_interrupts.py",
    f"{JOBS}pool/forked.py": "jobs/test_pool_decisions.py serving/test_serve.py",
    f"{JOBS}pool/metrics_port.py": "serving/test_metrics.py",
    f"{JOBS}pool/metrics_server.py": "serving/test_metrics.py",
    f"{JOBS}pool/options.py": _POOL,
    f"{JOBS}pool/pool.py": _POOL,
    f"{JOBS}pool/queue_keeper.py": f"{_POOL} jobs/test_stock_rq.py",
    f"{JOBS}pool/rq_commands.py": f"{_POOL} jobs/test_stock_rq.py",
    f"{JOBS}pool/records.py": "jobs/test_pool_decisions.py faults/test_moments.py",
    f"{JOBS}pool/signals.py": "jobs/test_pool_decisions.py faults/test_pool_signals.py",
    f"{JOBS}pool/slow_queue.py": "serving/test_logs.py",
    f"{JOBS}worker/intake.py": _WORKER,
    f"{JOBS}worker/start.py": _WORKER,
    f"{JOBS}worker/worker.py": _WORKER,
}

#: For modules that are not listed.
_OF_PACKAGES = {
    STORE: f"store/test_lists.py {_CALLS} store/test_workers.py",
    FRONT: f"front/test_decisions.py {_CONTRACT} {_PAGE}",
    f"{JOBS}pool/": _POOL,
    f"{JOBS}worker/": _WORKER,
}


def concerned(file):
    """Return the tests of a module, by its path."""
    package = f"{file.rpartition('/')[0]}/"
    return tuple(f"tests/{name}" for name in _TESTS.get(file, _OF_PACKAGES[package]).split())
