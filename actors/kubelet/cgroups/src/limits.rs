//! Arithmetic: what the kernel is told for so many thousandths of a CPU. Pure.

/// The fewest shares that the kernel takes; also what pods get that ask for nothing.
pub const SHARES_MIN: u64 = 2;
/// The most shares that the kernel takes.
const SHARES_MAX: u64 = 262_144;
const SHARES_PER_CPU: u64 = 1024;
const MILLI_PER_CPU: u64 = 1000;
/// The period in which a quota is spent, unless the node says otherwise: 100 ms, in microseconds.
pub const CPU_PERIOD_US: u64 = 100_000;
/// The smallest quota that the kernel takes: 1 ms, in microseconds.
const QUOTA_MIN_US: i64 = 1000;

/// v1's `cpu.shares` for so many thousandths of a CPU.
#[must_use]
pub fn cpu_shares(milli: u64) -> u64 {
    (milli.saturating_mul(SHARES_PER_CPU) / MILLI_PER_CPU).clamp(SHARES_MIN, SHARES_MAX)
}

/// The quota in microseconds per `period_us` for so many thousandths of a CPU; `None` for no limit, which 0 is as well.
#[must_use]
pub fn cpu_quota(milli: u64, period_us: u64) -> Option<i64> {
    if milli == 0 {
        return None;
    }
    let quota = u128::from(milli) * u128::from(period_us) / u128::from(MILLI_PER_CPU);
    Some(i64::try_from(quota).unwrap_or(i64::MAX).max(QUOTA_MIN_US))
}

/// v2's `cpu.weight` (1 to 10000) for v1's shares (2 to 262144): a straight line, as runc and the kubelet draw it.
#[must_use]
pub fn cpu_weight(shares: u64) -> u64 {
    1 + (shares.clamp(SHARES_MIN, SHARES_MAX) - SHARES_MIN) * 9999 / (SHARES_MAX - SHARES_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_follow_requests_within_the_kernels_bounds() {
        for (milli, shares) in
            [(0, 2), (1, 2), (2, 2), (3, 3), (100, 102), (1000, 1024), (1500, 1536), (9_999_999, 262_144)]
        {
            assert_eq!(cpu_shares(milli), shares, "{milli}m");
        }
        assert_eq!(cpu_shares(u64::MAX), 262_144);
    }

    #[test]
    fn quotas_follow_limits_and_never_fall_below_a_millisecond() {
        for (milli, quota) in [
            (0, None),
            (1, Some(1000)),
            (5, Some(1000)),
            (10, Some(1000)),
            (20, Some(2000)),
            (1000, Some(100_000)),
            (2500, Some(250_000)),
        ] {
            assert_eq!(cpu_quota(milli, CPU_PERIOD_US), quota, "{milli}m");
        }
        assert_eq!(cpu_quota(1000, 10_000), Some(10_000));
        assert_eq!(cpu_quota(u64::MAX, u64::MAX), Some(i64::MAX));
    }

    #[test]
    fn weights_span_their_range() {
        for (shares, weight) in
            [(0, 1), (2, 1), (102, 4), (1024, 39), (2048, 79), (262_144, 10_000), (u64::MAX, 10_000)]
        {
            assert_eq!(cpu_weight(shares), weight, "{shares} shares");
        }
    }
}
