//! Selectors, quantities and paths: the small languages inside of requests.
#![no_main]

use k3sd_objects::quantity::Quantity;
use k3sd_objects::selector::{FieldSelector, LabelSelector};
use k3sd_objects::table::JsonPath;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(selector) = text.parse::<LabelSelector>() {
        let again: LabelSelector = selector.to_string().parse().expect("what is printed is read again");
        assert_eq!(again.to_string(), selector.to_string());
    }
    if let Ok(selector) = text.parse::<FieldSelector>() {
        selector.to_string().parse::<FieldSelector>().expect("what is printed is read again");
    }
    if let Ok(quantity) = text.parse::<Quantity>() {
        quantity.to_string().parse::<Quantity>().expect("what is printed is read again");
    }
    drop(JsonPath::parse(text));
});
