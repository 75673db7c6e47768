#!/bin/sh
# Counts strikes and damaging strikes by phase of flight, with awk. Ignores its input; the result is
# {"phases": [{"phase": .., "strikes": .., "damaging": .., "cost_usd": ..}, ..]}, sorted by phase.
set -eu
data="$(dirname "$0")/../../data/birdstrikes/strikes.csv"
cat >/dev/null
awk -F, '
    NR > 1 {
        strikes[$4]++
        damaging[$4] += ($9 != "None")
        cost[$4] += $10
    }
    END {
        for (phase in strikes) {
            printf "{\"phase\":\"%s\",\"strikes\":%d,\"damaging\":%d,\"cost_usd\":%d}\n",
                phase, strikes[phase], damaging[phase], cost[phase]
        }
    }
' "$data" | LC_ALL=C sort | awk '
    BEGIN { printf "{\"phases\":[" }
    { printf "%s%s", (NR > 1 ? "," : ""), $0 }
    END { print "]}" }
'
