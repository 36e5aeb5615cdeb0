//! containerd's configuration, as data and as TOML.

mod base;
mod hosts;
mod registries;
mod toml;
mod version;

#[cfg(test)]
pub(crate) use self::base::tests::settings as settings_for_tests;
pub(crate) use self::base::{Settings, base, image_service, tidy};
pub(crate) use self::hosts::{HEADER, plan};
pub(crate) use self::registries::{FILE_BYTES_MAX, Registries};
pub(crate) use self::version::{Format, parse_version};
