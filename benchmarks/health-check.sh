#!/bin/bash
# The classic script that Sentinel replaces, its four checks kept as they are and only the accidents mended that keep
# it from running: the HELP line of the metric matched its grep, several processes broke its comparison, an absent
# metric broke its arithmetic. It stays here as the thing to be cheaper than; nothing ships it.
set -e

HEALTH_URL="${HEALTH_URL:-http://localhost:8080/health}"
METRICS_URL="${METRICS_URL:-http://localhost:9090/metrics}"
NAME="${NAME:-trading-engine}"

if ! curl -f -s "$HEALTH_URL" > /dev/null; then
    echo "Health endpoint failed"
    exit 1
fi

if ! pgrep -x "$NAME" > /dev/null; then
    echo "Trading engine process not found"
    exit 1
fi

MEMORY_PERCENT=$(ps aux | grep "$NAME" | grep -v grep | awk '{ sum += $4 } END { print sum + 0 }')
if (( $(echo "$MEMORY_PERCENT > 90" | bc -l) )); then
    echo "Memory usage too high: ${MEMORY_PERCENT}%"
    exit 1
fi

LATENCY=$(curl -s "$METRICS_URL" | grep '^latency_p99 ' | awk '{print $2}')
if [ -z "$LATENCY" ] || (( $(echo "$LATENCY > 1000" | bc -l) )); then
    echo "P99 latency too high: ${LATENCY}us"
    exit 1
fi

echo "All health checks passed"
exit 0
