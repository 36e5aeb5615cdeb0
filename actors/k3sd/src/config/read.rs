//! Typed views of settings. Each reader either returns a value or the error that names the place it was set.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::cidr::{Cidr, Family};
use crate::config::error::ConfigError;
use crate::config::model::{PortRange, Secret};
use crate::config::origin::Origin;
use crate::config::redact::quoted;
use crate::config::scalar;
use crate::config::settings::{Given, Setting, Settings};

type Read<T> = Result<T, ConfigError>;

/// An item of a list and who set it.
struct Item<'a> {
    text: &'a str,
    origin: &'a Origin,
}

impl Settings {
    /// A problem with what a flag is set to.
    pub(crate) fn refuse(&self, name: &str, problem: impl Into<String>) -> ConfigError {
        let setting = self.get(name);
        ConfigError::value(setting.flag, setting.origin(), problem)
    }

    /// A problem with the value itself, which is quoted unless it is secret.
    fn refuse_value(&self, name: &str, text: &str, problem: &str) -> ConfigError {
        self.refuse(name, format!("{} {problem}", quoted(self.get(name).flag, text)))
    }

    pub(crate) fn is_set(&self, name: &str) -> bool {
        self.get(name).differs_from_default()
    }

    pub(crate) fn switch(&self, name: &str) -> bool {
        self.get(name).text().is_some_and(|text| scalar::parse_bool(text) == Ok(true))
    }

    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.get(name).text().map(str::to_owned)
    }

    /// The text of a flag that has a default.
    pub(crate) fn word(&self, name: &str) -> String {
        self.text(name).unwrap_or_default()
    }

    pub(crate) fn secret(&self, name: &str) -> Option<Secret> {
        self.text(name).map(Secret::new)
    }

    /// A path, made absolute.
    pub(crate) fn path(&self, name: &str, cwd: &Path) -> Option<PathBuf> {
        self.get(name).text().map(|path| cwd.join(path))
    }

    pub(crate) fn mode(&self, name: &str) -> Read<u32> {
        let setting = self.get(name);
        let text = setting.text().unwrap_or_default();
        scalar::parse_mode(text).map_err(|error| ConfigError::scalar(setting.flag, setting.origin(), text, &error))
    }

    /// A whole number within limits; nothing when unset.
    pub(crate) fn int<T: TryFrom<i64>>(&self, name: &str, min: i64, max: i64) -> Read<Option<T>> {
        let setting = self.get(name);
        let Some(text) = setting.text() else { return Ok(None) };
        let number = scalar::parse_int(text)
            .map_err(|error| ConfigError::scalar(setting.flag, setting.origin(), text, &error))?;
        let fitting = Some(number).filter(|number| (min..=max).contains(number)).and_then(|n| T::try_from(n).ok());
        fitting.map(Some).ok_or_else(|| {
            self.refuse_value(name, text, &format!("is out of range; write a number from {min} to {max}"))
        })
    }

    /// A port; nothing when unset or 0.
    pub(crate) fn port(&self, name: &str) -> Read<Option<u16>> {
        Ok(self.port_or_zero(name)?.filter(|port| *port != 0))
    }

    /// A port that has to be one.
    pub(crate) fn required_port(&self, name: &str) -> Read<u16> {
        match self.port_or_zero(name)? {
            Some(port) if port != 0 => Ok(port),
            _ => Err(self.refuse_value(name, "0", "is not a port; write a number from 1 to 65535")),
        }
    }

    fn port_or_zero(&self, name: &str) -> Read<Option<u16>> {
        let outside = |text: &str| self.refuse_value(name, text, "is not a port; write a number from 1 to 65535");
        match self.get(name).text() {
            None => Ok(None),
            Some(text) => scalar::parse_int(text)
                .ok()
                .and_then(|number| u16::try_from(number).ok())
                .map(Some)
                .ok_or_else(|| outside(text)),
        }
    }

    /// A length of time above zero.
    pub(crate) fn positive_duration(&self, name: &str) -> Read<Duration> {
        let setting = self.get(name);
        let text = setting.text().unwrap_or_default();
        let duration = scalar::parse_duration(text)
            .map_err(|error| ConfigError::scalar(setting.flag, setting.origin(), text, &error))?;
        if duration.is_zero() {
            return Err(self.refuse_value(name, text, "is no time at all; write a duration above 0 such as 10m"));
        }
        Ok(duration)
    }

    /// One of a few words.
    pub(crate) fn choice<T: Copy>(&self, name: &str, words: &[(&str, T)]) -> Read<T> {
        let text = self.word(name);
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        found.ok_or_else(|| {
            let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.refuse_value(name, &text, &format!("is not one of the choices; write one of {}", words.join(", ")))
        })
    }

    pub(crate) fn ip(&self, name: &str) -> Read<Option<IpAddr>> {
        let parse = |text: &str| {
            text.parse().map_err(|_| self.refuse_value(name, text, "is not an IP address; write one such as 192.0.2.1"))
        };
        self.get(name).text().map(parse).transpose()
    }

    /// The items of a list, as given.
    pub(crate) fn list(&self, name: &str) -> Vec<String> {
        self.get(name).given.iter().map(|given| given.text.clone()).filter(|text| !text.is_empty()).collect()
    }

    /// The items of a list that commas separate as well.
    pub(crate) fn split_list(&self, name: &str) -> Vec<String> {
        split(self.get(name)).map(|item| item.text.to_owned()).collect()
    }

    pub(crate) fn ips(&self, name: &str) -> Read<Vec<IpAddr>> {
        let setting = self.get(name);
        let parse = |item: Item<'_>| {
            let problem = || format!("{:?} is not an IP address; write one such as 192.0.2.1", item.text);
            item.text.parse().map_err(|_| ConfigError::value(setting.flag, item.origin, problem()))
        };
        split(setting).map(parse).collect()
    }

    /// Networks, at most one of each family.
    pub(crate) fn cidrs(&self, name: &str) -> Read<Vec<Cidr>> {
        let setting = self.get(name);
        let mut cidrs: Vec<Cidr> = Vec::new();
        for Item { text, origin } in split(setting) {
            let refuse = |problem: String| ConfigError::value(setting.flag, origin, problem);
            let cidr: Cidr = text.parse().map_err(|_| {
                refuse(format!("{text:?} is not a network in CIDR notation; write one such as 10.42.0.0/16"))
            })?;
            if let Some(other) = cidrs.iter().find(|other| other.family() == cidr.family()) {
                let family = cidr.family();
                return Err(refuse(format!("{cidr} is a second {family} network beside {other}; keep one per family")));
            }
            cidrs.push(cidr);
        }
        Ok(cidrs)
    }

    /// A range of ports, written `30000-32767`, `30000+2767` or as a single port.
    pub(crate) fn port_range(&self, name: &str) -> Read<PortRange> {
        let text = self.word(name);
        parse_port_range(&text)
            .ok_or_else(|| self.refuse_value(name, &text, "is not a range of ports; write one such as 30000-32767"))
    }

    /// The address of a server, which has to be reached over TLS.
    pub(crate) fn server_url(&self, name: &str) -> Read<Option<String>> {
        let Some(url) = self.text(name) else { return Ok(None) };
        let host = url.strip_prefix("https://").map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
        if host.is_none_or(|host| host.is_empty() || host.contains(char::is_whitespace)) {
            return Err(self.refuse_value(name, &url, "is not an https URL; write one such as https://server:6443"));
        }
        Ok(Some(url))
    }
}

fn split(setting: &Setting) -> impl Iterator<Item = Item<'_>> {
    setting.given.iter().flat_map(items_of)
}

fn items_of(given: &Given) -> impl Iterator<Item = Item<'_>> {
    let texts = given.text.split(',').map(str::trim).filter(|text| !text.is_empty());
    texts.map(|text| Item { text, origin: &given.origin })
}

fn parse_port_range(text: &str) -> Option<PortRange> {
    let port = |text: &str| text.parse::<u16>().ok().filter(|_| !text.starts_with('+'));
    let (first, last) = if let Some((first, last)) = text.split_once('-') {
        (port(first)?, port(last)?)
    } else if let Some((first, more)) = text.split_once('+') {
        (port(first)?, port(first)?.checked_add(port(more)?)?)
    } else {
        (port(text)?, port(text)?)
    };
    (first > 0 && first <= last).then_some(PortRange { first, last })
}

/// The families of some networks, in order.
pub(crate) fn families(cidrs: &[Cidr]) -> Vec<Family> {
    let mut families: Vec<Family> = cidrs.iter().map(Cidr::family).collect();
    families.sort_unstable();
    families
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_ranges_as_kubernetes_writes_them() {
        let range = |first, last| Some(PortRange { first, last });
        let rows = [
            ("30000-32767", range(30000, 32767)),
            ("30000+10", range(30000, 30010)),
            ("30000", range(30000, 30000)),
            ("0-10", None),
            ("5-4", None),
            ("1-65536", None),
            ("65535+1", None),
            ("1-", None),
            ("-5", None),
            ("a-b", None),
            ("1-+5", None),
            ("", None),
        ];
        for (text, expected) in rows {
            assert_eq!(parse_port_range(text), expected, "{text:?}");
        }
    }
}
