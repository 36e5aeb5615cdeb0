//! Flags of `server` for the embedded etcd and its snapshots.

use crate::cli::feature::Feature;
use crate::cli::flag::{Flag, Group, Heading};

const ETCD: Group = Group(Heading::Database, Feature::Etcd);
const SNAPSHOTS: Group = Group(Heading::EtcdSnapshots, Feature::EtcdSnapshots);

/// A text of the S3 settings that may come from a variable other programs use as well.
const fn s3_credential(name: &'static str, env: &'static [&'static str], meaning: &'static str) -> Flag {
    SNAPSHOTS.text(name, meaning).env(env).env_only_with("etcd-s3").secret()
}

pub(super) static FLAGS: &[Flag] = &[
    ETCD.switch("etcd-expose-metrics", "Serve etcd's metrics on the node's address as well"),
    SNAPSHOTS.switch("etcd-disable-snapshots", "Take no snapshots on a schedule").turns_off(),
    SNAPSHOTS.text("etcd-snapshot-name", "First part of a scheduled snapshot's name").default("etcd-snapshot"),
    SNAPSHOTS.text("etcd-snapshot-schedule-cron", "When to take snapshots, as a cron line").default("0 */12 * * *"),
    SNAPSHOTS
        .duration("etcd-snapshot-reconcile-interval", "How often the list of snapshots is compared with what is stored")
        .default("10m"),
    SNAPSHOTS.int("etcd-snapshot-retention", "How many local snapshots to keep").default("5"),
    SNAPSHOTS.text("etcd-snapshot-dir", "Directory for snapshots").derived("server/db/snapshots in the data directory"),
    SNAPSHOTS.switch("etcd-snapshot-compress", "Compress snapshots"),
    SNAPSHOTS.switch("etcd-s3", "Copy snapshots to S3"),
    SNAPSHOTS.text("etcd-s3-endpoint", "Host, with port if need be, of the S3 service").default("s3.amazonaws.com"),
    SNAPSHOTS.text("etcd-s3-endpoint-ca", "Certificate authority of that service, as a file or base64"),
    SNAPSHOTS.switch("etcd-s3-skip-ssl-verify", "Trust any certificate of that service"),
    s3_credential("etcd-s3-access-key", &["AWS_ACCESS_KEY_ID"], "Access key for S3"),
    s3_credential("etcd-s3-secret-key", &["AWS_SECRET_ACCESS_KEY"], "Secret key for S3"),
    s3_credential("etcd-s3-session-token", &["AWS_SESSION_TOKEN"], "Session token for S3"),
    SNAPSHOTS.text("etcd-s3-bucket", "Bucket for snapshots"),
    SNAPSHOTS.text("etcd-s3-bucket-lookup-type", "How the bucket is addressed: auto, dns or path").default("auto"),
    SNAPSHOTS.text("etcd-s3-region", "Region of the bucket").default("us-east-1"),
    SNAPSHOTS.text("etcd-s3-folder", "Prefix of the snapshots' keys in the bucket"),
    SNAPSHOTS
        .int("etcd-s3-retention", "How many snapshots to keep in S3")
        .derived("5, or --etcd-snapshot-retention when only that is set")
        .usual(&["5"]),
    SNAPSHOTS
        .text("etcd-s3-proxy", "URL of a proxy on the way to S3; none for no proxy at all")
        .turns_off_with("none")
        .credentials(),
    SNAPSHOTS.text("etcd-s3-config-secret", "Secret in kube-system that holds the S3 settings"),
    SNAPSHOTS.switch("etcd-s3-insecure", "Talk to S3 without TLS"),
    SNAPSHOTS.duration("etcd-s3-timeout", "How long an S3 operation may take").default("5m"),
];
