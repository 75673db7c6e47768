//! Subscriptions, as they are asked for.

use maos_api::error::ApiError;
use maos_api::subscriptions::{self, Checks, Subscription, SubscriptionAnswer, SubscriptionList};

use super::Service;
use crate::webhooks::Secret;

impl Service {
    /// All subscriptions.
    ///
    /// # Errors
    /// Why they cannot be told.
    pub async fn subscriptions(&self) -> Result<SubscriptionList, ApiError> {
        Ok(SubscriptionList { items: self.inner.subscriptions.all().await? })
    }

    /// Makes or changes a subscription.
    ///
    /// # Errors
    /// What is wrong with it, or why it cannot be kept.
    pub async fn put_subscription(
        &self,
        name: &str,
        body: &[u8],
    ) -> Result<Subscription, ApiError> {
        self.check_intake()?;
        subscriptions::parse_name(name)?;
        let checks = Checks {
            url: &|url| {
                let fault = self.inner.webhooks.check(url).err();
                fault.map(|why| format!("cannot be called: {why}"))
            },
            secret: &|text| Secret::parse(text).err(),
        };
        let wanted = subscriptions::parse(body, self.bounds(), checks)?;
        self.inner.subscriptions.put(name, wanted).await
    }

    /// One subscription.
    ///
    /// # Errors
    /// That there is none, or why it cannot be told.
    pub async fn subscription(&self, name: &str) -> Result<Subscription, ApiError> {
        self.inner.subscriptions.one(name).await
    }

    /// Ends a subscription.
    ///
    /// # Errors
    /// That there is none, or why it cannot be ended.
    pub async fn delete_subscription(&self, name: &str) -> Result<SubscriptionAnswer, ApiError> {
        self.inner.subscriptions.delete(name).await?;
        Ok(SubscriptionAnswer { message: "subscription ended".to_owned(), name: name.to_owned() })
    }

    /// Has everything delivered again that a subscription has given up.
    ///
    /// # Errors
    /// That there is none.
    pub fn replay_subscription(&self, name: &str) -> Result<SubscriptionAnswer, ApiError> {
        self.inner.subscriptions.replay(name)?;
        let message = "what was given up is delivered again".to_owned();
        Ok(SubscriptionAnswer { message, name: name.to_owned() })
    }
}
