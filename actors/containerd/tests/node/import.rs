//! The images directory.

use std::fs;
use std::io::Write as _;

use k3sd_containerd::image::{BuiltImage, ImageBuilder};
use k3sd_cri::v1;

use crate::support::node;

fn image(name: &str) -> BuiltImage {
    // Some bytes that take more than one message.
    let bytes: Vec<u8> = (0..700_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    ImageBuilder::new(name).file("data", 0o644, bytes).file("name", 0o644, name).command(["/data"]).build()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_archive_is_imported_and_damaged_ones_are_told() {
    let Some(mut node) = node() else { return };
    node.config.airgap_extra_registries = vec!["r.example:5000".to_owned()];
    let archive = |name: &str| BuiltImage::oci_archive(&[image(name)]);
    node.put("oci.tar", &archive("oci:1"));
    node.put("deeper/gzip.tar.gz", &gzip(&archive("gzip:1")));
    node.put("docker.tgz", &gzip(&BuiltImage::docker_archive(&[image("docker:1"), image("docker:2")])));
    let level = ruzstd::encoding::CompressionLevel::Fastest;
    node.put("zstd.tar.zst", &ruzstd::encoding::compress_to_vec(archive("zstd:1").as_slice(), level));
    let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
    lz4.write_all(&archive("lz4:1")).unwrap();
    node.put("lz4.tar.lz4", &lz4.finish().unwrap());
    let whole = archive("cut:1");
    let cut = node.put("cut.tar", &whole[..whole.len() - 300_000]);
    let wrong = node.put("wrong.tar", b"no archive at all");
    node.put("notes.md", b"left alone");

    let running = node.start().await;
    let status = running.images_until("all are done", |s| s.imported == 5 && s.waiting == 0).await;
    let mut failed: Vec<_> = status.failed.iter().map(|(path, _)| path.clone()).collect();
    failed.sort();
    assert_eq!(failed, [cut.clone(), wrong], "{status:?}");
    for name in ["oci:1", "gzip:1", "docker:1", "docker:2", "zstd:1", "lz4:1"] {
        let found = running.image(&format!("docker.io/library/{name}")).await;
        let found = found.unwrap_or_else(|| panic!("{name} is not there"));
        assert_eq!(found.id, image(name).id(), "{name}");
        assert!(running.image(&format!("r.example:5000/library/{name}")).await.is_some(), "{name} in the registry");
    }
    let digest = image("oci:1").digest();
    assert!(running.image(&format!("docker.io/library/oci@{digest}")).await.is_some());
    let all = running.cri.list_images(v1::ListImagesRequest::default()).await.unwrap().images;
    assert!(!all.iter().any(|image| image.repo_tags.iter().any(|tag| tag.contains("cut"))), "{all:?}");

    // A file that is mended is imported, and so is one that comes later.
    fs::write(&cut, &whole).unwrap();
    node.put("later.tar", &archive("later:1"));
    running.images_until("later ones", |status| status.imported == 7 && status.failed.len() == 1).await;
    assert!(running.image("docker.io/library/cut:1").await.is_some());
    assert!(running.image("docker.io/library/later:1").await.is_some());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_pin_what_is_there_and_unchanged_files_are_skipped() {
    let Some(node) = node() else { return };
    node.put(".cache.json", b"");
    node.put("a.tar", &BuiltImage::oci_archive(&[image("listed:1")]));
    let running = node.start().await;
    running.images_until("imported", |status| status.imported == 1).await;
    // Nothing answers on the port of the second one; the first one counts.
    node.put("b.txt", b"listed:1 # is there\n127.0.0.1:9/absent:1\n");
    let status = running.images_until("the list", |status| status.imported == 2).await;
    assert!(status.failed.is_empty(), "{status:?}");
    running.stop().await;

    let cache = fs::read_to_string(node.config.images_dir().join(".cache.json")).unwrap();
    assert!(cache.contains("a.tar") && cache.contains("docker.io/library/listed:1"), "{cache}");
    // The same size and time, but nothing in it: only a file that isn't read can be imported.
    let file = node.config.images_dir().join("a.tar");
    let meta = fs::metadata(&file).unwrap();
    let opened = fs::File::options().write(true).open(&file).unwrap();
    opened.set_len(0).unwrap();
    opened.set_len(meta.len()).unwrap();
    opened.set_modified(meta.modified().unwrap()).unwrap();
    let running = node.start().await;
    let status = running.images_until("both again", |status| status.imported == 2).await;
    assert!(status.failed.is_empty(), "{status:?}");
    running.stop().await;
}
