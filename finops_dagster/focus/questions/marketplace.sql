-- What was bought from other companies through the clouds' marketplaces?
SELECT x_billing_month AS month, ProviderName, PublisherName, ServiceName, BillingCurrency,
       count(*) AS charges, round(sum(BilledCost), 2) AS billed
FROM focus
WHERE NOT starts_with(PublisherName, ProviderName)
    AND NOT (ProviderName = 'AWS' AND starts_with(PublisherName, 'Amazon'))
GROUP BY ALL
ORDER BY ALL;
